// Classify a batch with a detector graph in Node.js.
//
//   npm install onnxruntime-node
//   node classify.mjs model.detector.onnx batch.f32 8,1,28,28
//
// batch.f32 holds float32 numbers, little-endian, in the model's layout.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";

const [model, file, shape] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
const bytes = await readFile(file);
const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
const batch = new ort.Tensor("float32", values, shape.split(",").map(Number));
const answers = await session.run({ [session.inputNames[0]]: batch });

for (let i = 0; i < batch.dims[0]; i++) {
  console.log(JSON.stringify({
    class: Number(answers.mmbm_corrected_class.data[i]),
    flagged: Boolean(answers.mmbm_flagged.data[i]),
    p_value: answers.mmbm_p_value.data[i],
    suspected: Number(answers.mmbm_suspected_class.data[i]),
  }));
}
