"""OpenAI-compatible teacher endpoint that runs in a pod and answers each question with its number."""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Teacher(BaseHTTPRequestHandler):
    """Answers chat completions."""

    def do_POST(self) -> None:
        """Say what number was asked about; with a usage, so that the budget can be settled."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = re.search(r"\d+", body["messages"][-1]["content"])
        message = {"role": "assistant", "content": f"yes {number.group() if number else ''} is settled"}
        answer = {
            "choices": [{"message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8000), Teacher).serve_forever()
