"""vLLM with one core and a server for each pair of parsers: ``python many_parsers.py SERVERS ARGUMENTS OF VLLM``.

SERVERS is a file with a list in JSON. Each server has a ``socket``, a ``chat_template``, and the names of parsers,
``tool_call_parser`` and ``reasoning_parser``, which may be empty. It runs in the engine's environment. A core takes
half a minute to start, a server none.
"""

import asyncio
import copy
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.parser.cohere_command import MODEL_TO_TAG_STYLE
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.utils.counter import AtomicCounter


async def serve(servers: list[dict[str, Any]], arguments: list[str]) -> None:
    """Answer until the process ends."""
    # The parser for Cohere's models asks for their architectures, by which it constrains calls.
    MODEL_TO_TAG_STYLE["LlamaForCausalLM"] = MODEL_TO_TAG_STYLE["Cohere2ForCausalLM"]
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
    # The core knows adapters by numbers, which the servers share.
    numbers = AtomicCounter(0)
    async with build_async_engine_client(args) as engine, asyncio.TaskGroup() as group:
        tasks = await engine.get_supported_tasks()
        for each in servers:
            own = copy.deepcopy(args)
            own.tool_call_parser = each["tool_call_parser"] or None
            own.enable_auto_tool_choice = own.tool_call_parser is not None
            own.structured_outputs_config.reasoning_parser = each["reasoning_parser"]
            own.chat_template = each["chat_template"]
            app = build_app(own, tasks, engine.model_config)
            await init_app_state(engine, app.state, own, tasks)
            app.state.openai_serving_models.lora_id_counter = numbers
            config = uvicorn.Config(app, uds=each["socket"], access_log=False)
            app.state.server = uvicorn.Server(config)
            group.create_task(app.state.server.serve())


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2:]))
