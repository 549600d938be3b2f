//! The OpenAPI description of the API, served at `/api/v1/openapi.json` and kept in `docs/`.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::overview::Overview;
use crate::{
    config::SourceKind,
    partition::State,
    words::{Explanation, Health, Partitions, PlannedPartitions},
};

/// The description of every path in [`super::ROUTES`].
pub fn description() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let text = |name: &str, meaning: &str, required: bool| json!({"name": name, "in": "query", "description": meaning, "required": required, "schema": {"type": "string"}});
    let date = |name: &str, meaning: &str, required: bool| {
        json!({"name": name, "in": "query", "description": meaning, "required": required,
               "schema": {"type": "string", "format": "date"}})
    };
    let state = json!({"name": "state", "in": "query", "description": "Only partitions in this state.",
                       "required": false, "schema": generator.subschema_for::<State>()});
    // Its schema is part of those of partitions; added here in case that no longer holds.
    let _ = generator.subschema_for::<SourceKind>();

    let paths = json!({
        "/api/v1/overview": operation::<Overview>(&mut generator, "The state of all reports.", json!([]), &[503]),
        "/api/v1/partitions": operation::<Partitions>(
            &mut generator,
            "The partitions and their state, as `moesync status --json` prints them.",
            json!([
                text("workspace", "Only this workspace.", false),
                text("report", "Only the report with this id.", false),
                state,
                date("since", "Only partitions of this date and later.", false),
            ]),
            &[400, 503],
        ),
        "/api/v1/partition": operation::<Explanation>(
            &mut generator,
            "Everything about one partition, as `moesync explain --json` prints it.",
            json!([
                text("workspace", "Name of the workspace.", true),
                text("report", "Id of the report.", true),
                date("date", "The partition's date.", true),
            ]),
            &[400, 404, 503],
        ),
        "/api/v1/plan": operation::<PlannedPartitions>(
            &mut generator,
            "The last plan: what is fetched, when and why, in the form of `moesync plan --json`.",
            json!([]),
            &[503],
        ),
        "/api/v1/openapi.json": {"get": {
            "summary": "This description.",
            "responses": {"200": answer("The description.", "application/json", json!({"type": "object"}))},
        }},
        "/livez": health(&mut generator, "Whether the main loop runs; if not, restart the process."),
        "/readyz": health(&mut generator, "Whether the ledger answers and every destination can be written to."),
        "/metrics": {"get": {
            "summary": "Metrics in Prometheus' text format.",
            "responses": {
                "200": answer("The metrics.", "text/plain", json!({"type": "string"})),
                "503": answer("The ledger cannot be read.", "text/plain", json!({"type": "string"})),
            },
        }},
    });
    let mut schemas: Map<String, Value> = generator.take_definitions(true).into_iter().collect();
    schemas.insert(
        "Error".into(),
        json!({"type": "object", "required": ["error"],
               "properties": {"error": {"type": "string", "description": "The reason, as text."}}}),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "moesync",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The state of the reports that moesync fetches. The API is read-only: GET and HEAD. Times are \
                            RFC 3339, UTC.",
        },
        "security": [{}, {"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The token in web.token_file."},
                "basic": {"type": "http", "scheme": "basic", "description": "The token as the password of any user."},
            },
        },
    })
}

fn operation<T: JsonSchema>(
    generator: &mut SchemaGenerator,
    summary: &str,
    parameters: Value,
    refusals: &[u16],
) -> Value {
    let mut responses = Map::new();
    responses.insert("200".into(), answer("Success.", "application/json", json!(generator.subschema_for::<T>())));
    for status in refusals {
        let why = match status {
            400 => "A parameter is missing or invalid.",
            404 => "There is no such report or date.",
            _ => "The ledger cannot be read.",
        };
        let schema = json!({"$ref": "#/components/schemas/Error"});
        responses.insert(status.to_string(), answer(why, "application/json", schema));
    }
    json!({"get": {"summary": summary, "parameters": parameters, "responses": responses}})
}

fn health(generator: &mut SchemaGenerator, summary: &str) -> Value {
    let schema = json!(generator.subschema_for::<Health>());
    json!({"get": {"summary": summary, "responses": {
        "200": answer("All checks succeeded.", "application/json", schema.clone()),
        "503": answer("A check failed, with the reason.", "application/json", schema),
    }}})
}

fn answer(description: &str, content_type: &str, schema: Value) -> Value {
    json!({"description": description, "content": {content_type: {"schema": schema}}})
}
