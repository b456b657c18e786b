// Runs a model on batches that lie beside it as raw numbers: node run.mjs PACKAGE.
import fs from "node:fs";

const loaded = await import(process.argv[2]);
const ort = loaded.InferenceSession ? loaded : loaded.default;
if (ort.env.wasm) ort.env.wasm.numThreads = 1;

const arrays = { float32: Float32Array, float16: globalThis.Float16Array ?? Uint16Array };
const job = JSON.parse(fs.readFileSync("job.json", "utf8"));
const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(job.model)));
const outputs = [];
for (const [batch, shape] of job.shapes.entries()) {
  const bytes = new Uint8Array(fs.readFileSync(`in-${batch}`));
  const data = new arrays[job.type](bytes.buffer);
  const feeds = { [session.inputNames[0]]: new ort.Tensor(job.type, data, shape) };
  const answers = await session.run(feeds);
  outputs.push(
    session.outputNames.map((name, index) => {
      const { data, type, dims } = answers[name];
      fs.writeFileSync(`out-${batch}-${index}`, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
      return [type, [...dims]];
    }),
  );
}
fs.writeFileSync("told.json", JSON.stringify({ names: session.outputNames, outputs }));
process.exit(0);
