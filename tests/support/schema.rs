//! What `--json` prints, held against `docs/output.schema.json`.

use serde_json::Value;

use crate::program::Done;

/// The objects that a command has printed, each of a type that the schema names.
#[track_caller]
pub(crate) fn objects(done: &Done) -> Vec<Value> {
    let schema: Value = serde_json::from_str(include_str!("../../docs/output.schema.json")).unwrap();
    let text = String::from_utf8(done.out.clone()).unwrap();
    let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for object in &objects {
        let of_type = &schema["$defs"][object["type"].as_str().unwrap()];
        assert!(of_type.is_object(), "the schema knows no {object}");
        assert_eq!(mistake(object, of_type), None, "{object}");
    }
    objects
}

/// Why a value is not what a schema says, in the parts of JSON Schema that ours uses.
fn mistake(value: &Value, schema: &Value) -> Option<String> {
    for (rule, of) in schema.as_object().unwrap() {
        let is_kept = match rule.as_str() {
            "type" => match of.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                other => panic!("a type that is not checked: {other}"),
            },
            "const" => value == of,
            "enum" => of.as_array().unwrap().contains(value),
            "minimum" => value.as_f64() >= of.as_f64(),
            "maximum" => value.as_f64() <= of.as_f64(),
            "minItems" => !value.as_array().unwrap().is_empty() && of == 1,
            "required" => {
                of.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object().unwrap();
                value.as_object().unwrap().keys().all(|name| known.contains_key(name))
            }
            "properties" => {
                let wrong =
                    |(name, of): (&String, &Value)| value.get(name).and_then(|value| mistake(value, of));
                match of.as_object().unwrap().iter().find_map(wrong) {
                    Some(mistake) => return Some(mistake),
                    None => true,
                }
            }
            "items" => return value.as_array().unwrap().iter().find_map(|value| mistake(value, of)),
            other => panic!("a rule that is not checked: {other}"),
        };
        if !is_kept {
            return Some(format!("{value} breaks {rule} {of}"));
        }
    }
    None
}
