// Cut, resize, crop and pad as manifest.json says. An image is { width, height, data: RGB bytes }.
const FILTERS = { // support, and weight at a distance: Pillow's
  box: [0.5, x => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, x => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, x => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI)) : 0)],
  bicubic: [2, x => cubic(Math.abs(x), -0.5)],
  lanczos: [3, x => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const BITS = 2 ** 22; // Pillow's fixed point

const sinc = x => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

function cubic(x, a) {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function even(x) { // to the nearest, halves to the even one
  const low = Math.floor(x), rest = x - low;
  return rest === 0.5 ? low + (low % 2 ? 1 : 0) : low + (rest > 0.5 ? 1 : 0);
}

function filterTaps(old, size, name) {
  const [support, weight] = FILTERS[name], scale = old / size, wide = Math.max(scale, 1);
  return Array.from({ length: size }, (_, i) => {
    const center = (i + 0.5) * scale, start = Math.max(0, Math.trunc(center - support * wide + 0.5));
    const length = Math.min(old, Math.trunc(center + support * wide + 0.5)) - start;
    const weights = Array.from({ length }, (_, x) => weight((start + x - center + 0.5) / wide));
    const sum = weights.reduce((a, b) => a + b, 0) || 1;
    return weights.map((w, x) => [start + x, Math.trunc((w / sum) * BITS + (w < 0 ? -0.5 : 0.5)) / BITS]);
  });
}

function pointTaps(old, size, { interpolation, sampling }) {
  return Array.from({ length: size }, (_, i) => {
    const at = sampling === "corners" ? (i * (old - 1)) / Math.max(size - 1, 1)
      : (i + 0.5) * (old / size) - 0.5;
    const start = Math.floor(at), linear = interpolation === "bilinear";
    return (linear ? [0, 1] : [-1, 0, 1, 2]).map(step => {
      const away = Math.abs(at - start - step), index = Math.min(Math.max(start + step, 0), old - 1);
      return [index, linear ? 1 - away : cubic(away, -0.75)];
    });
  });
}

function nearestTaps(old, size) {
  let at = old / size / 2;
  return Array.from({ length: size }, () => {
    const index = Math.min(Math.floor(at), old - 1);
    at += old / size;
    return [[index, 1]];
  });
}

function along({ width, height, data }, axis, taps, round) {
  const size = axis ? [taps.length, height] : [width, taps.length];
  const result = new (round ? Uint8ClampedArray : Float32Array)(size[0] * size[1] * 3);
  const [step, across, count] = axis ? [3, width * 3, height] : [width * 3, 3, width];
  const [newStep, newAcross] = axis ? [3, size[0] * 3] : [size[0] * 3, 3];
  taps.forEach((row, i) => {
    for (let at = 0; at < count * 3; at++) {
      const from = Math.floor(at / 3) * across + (at % 3);
      let sum = 0;
      for (const [index, weight] of row) sum += data[index * step + from] * weight;
      result[i * newStep + Math.floor(at / 3) * newAcross + (at % 3)] = round ? round(sum) : sum;
    }
  });
  return { width: size[0], height: size[1], data: result };
}

function resized(image, [width, height], spec) {
  if (spec.sampling !== "filter" && spec.interpolation !== "nearest") {
    const rows = along(image, 0, pointTaps(image.height, height, spec));
    return along(rows, 1, pointTaps(image.width, width, spec), even);
  }
  const taps = spec.interpolation === "nearest" ? nearestTaps : filterTaps;
  const shrinks = image.height - height; // Pillow 13 begins with the side that shrinks much more
  const order = shrinks > 0 && shrinks > 2 * (image.width - width) ? [0, 1] : [1, 0];
  for (const axis of order) {
    const [old, size] = axis ? [image.width, width] : [image.height, height];
    if (old === size) continue;
    image = along(image, axis, taps(old, size, spec.interpolation), x => Math.floor(x + 0.5));
  }
  return image;
}

function placed(image, width, height, left, top, color) { // crop where it is larger, pad where not
  const data = new Uint8ClampedArray(width * height * 3).map((_, i) => color[i % 3]);
  for (let y = Math.max(0, top); y < Math.min(height, top + image.height); y++) {
    const [start, end] = [Math.max(0, left), Math.min(width, left + image.width)];
    const from = ((y - top) * image.width + start - left) * 3;
    data.set(image.data.subarray(from, from + (end - start) * 3), (y * width + start) * 3);
  }
  return { width, height, data };
}

function resizedSize(w, h, spec) {
  const [width, height] = spec.resize_px ? [spec.resize_px, spec.resize_px] : [spec.width, spec.height];
  const whole = spec.resize_rounding === "nearest" ? even : Math.floor;
  if (spec.resize === "exact") return [width, height];
  if (spec.resize === "inside") {
    const scale = Math.min(height / h, width / w), up = spec.resize_rounding === "up";
    const half = spec.resize_rounding === "nearest" ? 0.5 : 0;
    const size = up ? [Math.ceil(height * (w / h)), Math.ceil(width * (h / w))]
      : [Math.trunc(w * scale + half), Math.trunc(h * scale + half)];
    return [Math.max(1, Math.min(size[0], width)), Math.max(1, Math.min(size[1], height))];
  }
  if (!spec.resize_px) {
    return w * height <= h * width ? [width, whole((h * width) / w)] : [whole((w * height) / h), height];
  }
  let side = spec.resize_px, exact = side;
  const [short, long] = [Math.min(w, h), Math.max(w, h)], limit = spec.resize_limit_px;
  if (limit && (long / short) * side > limit) side = even(exact = (limit * short) / long);
  const other = whole((exact * long) / short);
  return short === side ? [w, h] : w < h ? [side, other] : [other, side];
}

export function fit(image, spec) {
  if (spec.crop_share) {
    const side = Math.trunc(spec.crop_share * Math.min(image.width, image.height));
    const [left, top] = [image.width - side, image.height - side].map(x => -Math.floor(x / 2));
    image = placed(image, side, side, left, top, spec.pad_color);
  } else if (spec.pad === "square") {
    const side = Math.max(image.width, image.height);
    image = placed(image, side, side, 0, 0, spec.pad_color);
  }
  image = resized(image, resizedSize(image.width, image.height, spec), spec);
  const half = spec.crop_rounding === "even" ? even : Math.floor;
  const [left, top] = [[image.width, spec.width], [image.height, spec.height]].map(([old, size]) =>
    old > size ? -half((old - size) / 2) : spec.pad === "end" ? 0 : Math.floor((size - old) / 2));
  return placed(image, spec.width, spec.height, left, top, spec.pad_color);
}
