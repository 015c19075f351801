"""The JSON schema of comparison files: the vocabulary plus ``extends``, ``include`` and the methods' options."""

from __future__ import annotations

from typing import Any

from bench.config.schema import Comparison, Recipe
from bench.errors import ConfigError
from bench.registry import method_config, method_names


def comparison_schema() -> dict[str, Any]:
    """What an editor needs to complete and check a file. Options are checked by the method a run names."""
    schema = Comparison.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    files = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    schema["properties"]["extends"] = {**files, "description": "File or files to start from."}
    schema["properties"]["include"] = {**files, "description": "Fragments to add; patterns are allowed."}
    several = schema["properties"]["ablation"]
    schema["properties"]["ablation"] = {
        "anyOf": [several.pop("items"), {"type": "array", "items": {"$ref": "#/$defs/Ablation"}}],
        "description": several["description"],
    }
    schema["required"] = []  # a file that extends another, or a fragment, need not say everything
    recipe = Recipe.model_json_schema()
    definitions["RecipeChange"] = {**recipe, "required": []}
    run = definitions["Run"]
    run["properties"]["recipe"] = {"$ref": "#/$defs/RecipeChange"}
    run["properties"]["stages"]["additionalProperties"] = {"$ref": "#/$defs/RecipeChange"}
    rules = []
    for name in method_names():
        try:
            config = method_config(name)
        except ConfigError:  # a broken plug-in must not hide the others
            continue
        options = config.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        for inner, value in options.pop("$defs", {}).items():
            definitions[f"{name}.{inner}"] = value
        definitions[f"{name}.options"] = options
        run["properties"]["method"].setdefault("examples", []).append(name)
        rules.append({
            "if": {"properties": {"method": {"const": name}}, "required": ["method"]},
            "then": {"properties": {"options": {"$ref": f"#/$defs/{name}.options"}}},
        })  # fmt: skip
    run["allOf"] = rules
    return schema
