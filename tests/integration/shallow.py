"""SmolLM2 of which all but the first layers are left away: a file with a real tokenizer, template
and quants that a real engine reads four times as fast. What it answers means nothing."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFReader, GGUFValueType, GGUFWriter

from tokrig.models import catalog

LAYERS = 2


def write_shallow(path: Path) -> None:
    """The first ``LAYERS`` of the catalog's smollm2-135m, all else to the byte."""
    whole = GGUFReader(catalog.resolve("smollm2-135m"))
    writer = GGUFWriter(path, "llama")
    for name, field in whole.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind is GGUFValueType.ARRAY else None
        value = LAYERS if name == "llama.block_count" else field.contents()
        writer.add_key_value(name, value, kind, inner)
    for tensor in whole.tensors:
        part, _, rest = tensor.name.partition(".")
        if part == "blk" and int(rest.partition(".")[0]) >= LAYERS:
            continue
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
