"""LocalScore: the JSON that its program sends and writes.

Fields after ``src/pages/api/results.ts`` (cjpais/LocalScore, commit
ef2c21fa13d4ad9ab87ee23f88df5b9eecb6b607). A test is ``n_prompt`` tokens, then ``n_gen``; both rates
and TTFT are means. The program runs the model itself: there is no server and no client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokrig.exchange.document import Document
from tokrig.exchange.fields import Fields
from tokrig.exchange.format import MS, Format, Found, objects, summary
from tokrig.exchange.machine import card, machine
from tokrig.exchange.models import model_of
from tokrig.record.block import Summary
from tokrig.record.model import BackendFacts, Raw
from tokrig.units import GIB, significant


def _read(document: Document) -> Iterable[Found]:
    for report in objects(document):
        results = report.each("results")
        if not results:
            raise report.refuse("results", "no results in it")
        name = report.text("accelerator_info.name")
        memory = report.number("accelerator_info.memory_gb")
        is_gpu = report.text("accelerator_info.type") == "GPU"
        ram = report.positive("system_info.ram_gb")
        first = results[0]
        found = Found(
            model=model_of(
                first.text("model_name"),
                quant=first.text("model_quant_str"),
                parameters=first.count("model_n_params"),
            ),
            backend=BackendFacts(
                name=FORMAT.name,
                engine=report.text("runtime_info.name") or "llama.cpp",
                build=report.text("runtime_info.version") or report.text("runtime_info.commit"),
            ),
            rig=machine(
                report.text("system_info.cpu_name"),
                [card(name, memory)] if name and is_gpu else [],
                memory_bytes=ram and ram * GIB,
                kernel=report.text("system_info.kernel_release"),
                os=report.text("system_info.kernel_type"),
            ),
            version=report.text("runtime_info.version"),
        )
        for one in results:
            found.raw += _figures(one)
        yield found


def _figures(one: Fields) -> Iterator[Raw]:
    prompt, output = one.count("n_prompt") or 0, one.count("n_gen") or 0
    ttft = one.positive("ttft_ms")
    pace, first = _mean(one.positive("prompt_tps")), _mean(ttft and ttft * MS)
    if prompt and pace:
        yield Raw(test=f"pp{prompt}", prompt_tokens=prompt, tok_per_s=pace, ttft_s=first)
    if output and (rate := _mean(one.positive("gen_tps"))):
        test = f"tg{output} @ d{prompt}"
        yield Raw(test=test, output_tokens=output, depth_tokens=prompt, tok_per_s=rate)


def _mean(value: float | None) -> Summary | None:
    return summary(mean=None if value is None else significant(value, 6))


FORMAT = Format(
    name="localscore",
    title="LocalScore",
    files="its JSON",
    kinds=frozenset({"json"}),
    signatures=(frozenset({"system_info", "accelerator_info", "runtime_info", "results"}),),
    read=_read,
)
