// image.h with every rule at run time: words of a case on stdin, images and results as PPM files.
#include "image.h"

int main() {
    std::string in, out, pad;
    while (std::cin >> in >> out >> WIDTH >> HEIGHT >> RESIZE >> RESIZE_PX >> RESIZE_LIMIT_PX >> RESIZE_ROUNDING >>
           INTERPOLATION >> SAMPLING >> PAD >> CROP_ROUNDING >> CROP_SHARE) {
        Placement placement;
        Image image = fit(decode(in), placement);
        std::ofstream(out, std::ios::binary).write(reinterpret_cast<char*>(image.pixels.data()), std::streamsize(image.pixels.size()));
        std::printf("%.9f %.9f %.9f %.9f\n", placement.scale_x, placement.scale_y, placement.left, placement.top);
    }
}
