// One model in this page. Arrays come and go as base64; times are this page's own, ms.
const ARRAYS = {
  uint8: Uint8Array, int8: Int8Array, bool: Uint8Array, float32: Float32Array,
  int32: Int32Array, int64: BigInt64Array,
  float16: globalThis.Float16Array ?? Uint16Array,
};
let ort, session;

function decoded(text) {
  return Uint8Array.from(atob(text), character => character.charCodeAt(0));
}

function encoded({ buffer, byteOffset, byteLength }) {
  let text = "";
  for (let start = 0; start < byteLength; start += 32768) {
    const size = Math.min(32768, byteLength - start);
    text += String.fromCharCode(...new Uint8Array(buffer, byteOffset + start, size));
  }
  return btoa(text);
}

function spec({ name, type, shape }) {
  return { name, dtype: type, shape: shape.map(size => (typeof size === "number" ? size : null)) };
}

function tensors(feed) {
  return Object.fromEntries(Object.entries(feed).map(([name, { dtype, shape, data }]) =>
    [name, new ort.Tensor(dtype, new ARRAYS[dtype](decoded(data).buffer), shape)]));
}

globalThis.vitedge = {
  async open({ script, model, data, threads, provider, extra }) {
    if (provider === "webgpu" && !(await navigator.gpu?.requestAdapter())) return { absent: "WebGPU" };
    ort = await import(script);
    ort.env.logLevel = "error";
    ort.env.wasm.wasmPaths = new URL("ort/", location.href).href;
    ort.env.wasm.numThreads = crossOriginIsolated ? threads : 1;
    const externalData = data.map(path => ({ path, data: path }));
    session = await ort.InferenceSession.create(model, {
      executionProviders: [provider], logSeverityLevel: 3, externalData, extra,
    });
    return {
      inputs: session.inputMetadata.map(spec),
      outputs: session.outputMetadata.map(spec),
      threads: ort.env.wasm.numThreads,
    };
  },

  async run(feed) {
    const outputs = await session.run(tensors(feed));
    return Object.fromEntries(Object.entries(outputs).map(([name, { type, dims, data }]) =>
      [name, { dtype: type, shape: dims, data: encoded(data) }]));
  },

  async time({ feed, runs }) {
    const inputs = tensors(feed), times = [];
    for (let run = 0; run < runs; run++) {
      const start = performance.now();
      await session.run(inputs);
      times.push(performance.now() - start);
    }
    return times;
  },
};
