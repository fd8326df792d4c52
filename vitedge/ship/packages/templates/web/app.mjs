// One artifact of vitedge in a page: config.json is its manifest, as far as it is needed here.
import { fit } from "./resize.mjs";

const TOP = 5, of = id => document.getElementById(id), text = async path => (await fetch(path)).text();
const [config, labels] = [JSON.parse(await text("config.json")), (await text("labels.txt")).split("\n")];
const label = index => labels[index] ?? `class ${index}`;
const shade = index => [0, 2, 4].map(n => 128 + 100 * Math.cos(((index * 137.5) / 60 - n) * (Math.PI / 3)));
const color = index => `rgb(${shade(index).map(Math.round)})`;
let session, ort, state;

async function load() {
  document.title = of("name").textContent = config.name;
  ort = await import(`./ort/${config.script}`);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
  const threads = crossOriginIsolated ? config.threads || Math.min(navigator.hardwareConcurrency, 8) : 1;
  ort.env.wasm.numThreads = threads;
  session = await ort.InferenceSession.create("model.onnx", {
    executionProviders: [config.provider], logSeverityLevel: 3, extra: config.options,
    externalData: config.data.map(path => ({ path, data: path })),
  });
  of("how").textContent = state = `${config.provider === "webgpu" ? "WebGPU" : "WebAssembly"}, ${crossOriginIsolated
    ? `${threads} threads` : "single thread: this server sends no COOP and COEP headers"}`;
  of("file").disabled = of("camera").disabled = false;
}

async function run(pixels) { // RGB bytes of the model's input -> every output by its name
  const { name, shape } = config.input, whole = new Uint8Array(shape.reduce((a, b) => a * b));
  whole.set(pixels);
  return session.run({ [name]: new ort.Tensor("uint8", whole, shape) });
}

function softmax(scores) {
  const top = Math.max(...scores), powers = Array.from(scores, x => Math.exp(x - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map(x => x / sum);
}

const best = scores => scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]).slice(0, TOP);

function classes({ data }) {
  const scores = softmax(data.subarray(0, config.classes));
  return best(scores).map(i => ({ name: label(i), score: scores[i] }));
}

function mask({ data, dims: [, count, height, width] }, canvas) {
  const size = height * width, image = new ImageData(width, height), shares = new Array(count).fill(0);
  for (let at = 0; at < size; at++) {
    let chosen = 0;
    for (let i = 1; i < count; i++) if (data[i * size + at] > data[chosen * size + at]) chosen = i;
    shares[chosen] += 1 / size;
    image.data.set([...shade(chosen), 140], at * 4);
  }
  const small = new OffscreenCanvas(width, height);
  small.getContext("2d").putImageData(image, 0, 0);
  const pen = Object.assign(canvas.getContext("2d"), { imageSmoothingEnabled: false });
  pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  return best(shares).filter(i => shares[i]).map(i => ({ name: label(i), score: shares[i], color: color(i) }));
}

async function predict(image) {
  const start = performance.now(), pixels = fit(image, config.preprocess).data;
  const ready = performance.now(), outputs = await run(pixels);
  const done = performance.now(), { width, height } = config.preprocess, canvas = of("seen");
  Object.assign(canvas, { width, height });
  const shown = new ImageData(width, height);
  shown.data.forEach((_, i, all) => (all[i] = i % 4 === 3 ? 255 : pixels[(i >> 2) * 3 + (i % 4)]));
  canvas.getContext("2d").putImageData(shown, 0, 0);
  const main = outputs[config.output];
  const rows = config.task === "segmentation" ? mask(main, canvas) : classes(main);
  of("list").replaceChildren(...rows.map(({ name, score, color: tint }) => {
    const [row, bar, ...words] = ["li", "i", "span", "span"].map(kind => document.createElement(kind));
    words.forEach((word, i) => (word.textContent = i ? `${(100 * score).toFixed(1)}%` : name));
    Object.assign(bar.style, { width: `${100 * score}%`, background: tint ?? "" });
    row.append(...words, bar);
    return row;
  }));
  of("time").textContent = `resize ${(ready - start).toFixed(1)} ms, model ${(done - ready).toFixed(1)} ms`;
  of("how").textContent = state;
  of("result").hidden = false;
}

function pixelsOf(source, width, height) {
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.drawImage(source, 0, 0);
  const rgba = pen.getImageData(0, 0, width, height).data, data = new Uint8ClampedArray(width * height * 3);
  for (let i = 0, at = 0; i < rgba.length; i += 4) {
    if (rgba[i + 3] !== 255) throw new Error("it is transparent");
    for (let c = 0; c < 3; c++) data[at++] = rgba[i + c];
  }
  return { width, height, data };
}

async function decode(file) {
  const imageOrientation = config.preprocess.exif === "apply" ? "from-image" : "none";
  const bitmap = await createImageBitmap(file, { imageOrientation, colorSpaceConversion: "none" });
  return pixelsOf(bitmap, bitmap.width, bitmap.height);
}

const told = job => job.catch(error => { of("how").textContent = `this does not work: ${error.message ?? error}`; });
const open = file => file && session && told(decode(file).then(predict));

let stream;
async function camera() {
  if (stream) {
    stream = stream.getTracks().forEach(track => track.stop());
  } else {
    stream = await navigator.mediaDevices.getUserMedia({ video: true });
    const video = Object.assign(document.createElement("video"), { srcObject: stream, muted: true, playsInline: true });
    await video.play();
    const frame = async () => {
      if (!stream) return;
      await predict(pixelsOf(video, video.videoWidth, video.videoHeight));
      requestAnimationFrame(() => told(frame()));
    };
    told(frame());
  }
  of("camera").textContent = stream ? "Stop" : "Webcam";
}

of("file").onchange = event => open(event.target.files[0]);
of("camera").onclick = () => told(camera());
const drop = of("drop");
drop.ondragover = event => { event.preventDefault(); drop.className = "over"; };
drop.ondragleave = drop.ondrop = event => {
  event.preventDefault();
  drop.className = "";
  if (event.type === "drop") open(event.dataTransfer.files[0]);
};
globalThis.vitedge = { run, decode, fit: image => fit(image, config.preprocess), predict };
told(load());
