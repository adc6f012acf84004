"""A stand-in for TensorFlow Serving: its REST API over Python's HTTP server.

    python server.py SAVED_MODEL

It prints its port and answers `POST /v1/models/classifier:predict`.
"""

import base64
import http.server
import json
import sys

import tensorflow as tf

MODEL = tf.saved_model.load(sys.argv[1])


def decoded(value):
    """Files travel as {"b64": ...}, as in TensorFlow Serving."""
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    return value


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            length = int(self.headers["Content-Length"])
            request = json.loads(self.rfile.read(length))
            name = request.get("signature_name", "serving_default")
            serve = MODEL.signatures[name]
            spec = serve.structured_input_signature[1]["images"]
            images = [decoded(value) for value in request["instances"]]
            shape = (0, *spec.shape[1:]) if not images else None
            answer = serve(images=tf.constant(images, spec.dtype, shape))
            columns = {
                key: [
                    item.decode() if isinstance(item, bytes) else item
                    for item in value.numpy().tolist()
                ]
                for key, value in answer.items()
            }
            rows = [
                dict(zip(columns, row, strict=True))
                for row in zip(*columns.values(), strict=True)
            ]
            self.reply(200, {"predictions": rows})
        except Exception as error:
            self.reply(400, {"error": str(error)})

    def reply(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    if "atent_keras" in sys.modules:
        raise RuntimeError("TensorFlow alone has to do")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
