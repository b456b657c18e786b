"""A classifier behind HTTP, which tells Prometheus how much it flags.

Set it up, start it, ask it:

    pip install onnxruntime fastapi uvicorn prometheus-client
    MODEL=model.detector.onnx uvicorn --app-dir examples/service service:app
    curl --data-binary @batch.npy localhost:8000/classify     # float32, as the model takes it
    curl localhost:8000/metrics
"""

import io
import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
source = session.get_inputs()[0]
outputs = ["mmbm_flagged", "mmbm_p_value", "mmbm_suspected_class", "mmbm_corrected_class"]

inputs = Counter("mmbm_inputs", "Inputs classified")
flagged = Counter("mmbm_flagged", "Inputs flagged", ["suspected_class"])
p_values = Histogram(
    "mmbm_p_value",
    "How often a clean input scores at least as high",
    buckets=[0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1],
)
app = FastAPI()


@app.post("/classify")
async def classify(request: Request) -> list[dict]:
    try:
        x = np.load(io.BytesIO(await request.body()), allow_pickle=False)
        answers = session.run(outputs, {source.name: x})
    except Exception as error:  # whatever a client can send
        raise HTTPException(400, f"no batch for input {source.name!r}: {error}") from None
    rows = []
    columns = [answer.tolist() for answer in answers]
    for flag, p, suspected, corrected in zip(*columns, strict=True):
        inputs.inc()
        p_values.observe(p)
        if flag:
            flagged.labels(suspected).inc()
        # A flagged answer is a guess: leave it to the caller whether to take it.
        rows.append({"class": corrected, "flagged": flag, "p_value": p, "suspected": suspected})
    return rows


@app.get("/metrics")
def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
