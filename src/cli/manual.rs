//! The manual pages: one a command, and moesync.toml(5) from the schema of the configuration.

use clap::{Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, bold, italic, roman},
};
use serde_json::Value;

use super::{
    Arguments,
    help::{self, ENVIRONMENT, EXIT, FILES, TOPICS, Topic},
};
use crate::config;

/// All pages, by the names of their files.
pub(super) fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    // The page of each command says what `help` would.
    let mut root = help::strict(Arguments::command()).disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    add(&root, &mut Vec::new(), &mut pages)?;
    pages.push(("moesync.toml.5".to_owned(), configuration().into_bytes()));
    Ok(pages)
}

/// The page of moesync itself.
pub(super) fn main_page() -> std::io::Result<Vec<u8>> {
    let mut root = help::strict(Arguments::command()).disable_help_subcommand(true);
    root.build();
    page(&root, &[])
}

fn add(command: &Command, path: &mut Vec<String>, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    pages.push((Man::new(command.clone()).get_filename(), page(command, path)?));
    for inner in command.get_subcommands() {
        path.push(inner.get_name().to_owned());
        add(inner, path, pages)?;
        path.pop();
    }
    Ok(())
}

fn page(command: &Command, path: &[String]) -> std::io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).manual("moesync");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    let topic = TOPICS.iter().find(|topic| topic.command == path);
    if let Some(topic) = topic {
        add_topic(&mut rest, topic);
    }
    add_pairs(&mut rest, "EXIT STATUS", &EXIT);
    if let Some(exit) = topic.map(|topic| topic.exit).filter(|exit| !exit.is_empty()) {
        rest.control("PP", []).text([roman(exit.replace('\n', " "))]);
    }
    add_pairs(&mut rest, "ENVIRONMENT", &ENVIRONMENT);
    add_pairs(&mut rest, "FILES", &FILES);
    see_also(&mut rest, if path.is_empty() { "moesync-init(1), moesync-run(1)" } else { "moesync(1)" }, true);
    rest.to_writer(&mut text)?;
    Ok(text)
}

fn add_topic(page: &mut Roff, topic: &Topic) {
    if !topic.text.is_empty() {
        page.control("SH", ["FAULTS"]);
        as_it_is(page, topic.text.lines());
    }
    page.control("SH", ["EXAMPLES"]);
    as_it_is(page, topic.examples.iter().copied());
}

/// Lines that are not filled.
fn as_it_is<'a>(page: &mut Roff, lines: impl Iterator<Item = &'a str>) {
    page.control("nf", []);
    for line in lines {
        page.text([roman(line)]);
    }
    page.control("fi", []);
}

fn add_pairs(page: &mut Roff, heading: &str, pairs: &[(&str, &str)]) {
    page.control("SH", [heading]);
    for (name, meaning) in pairs {
        page.control("TP", []).text([bold(*name)]).text([roman(*meaning)]);
    }
}

fn see_also(page: &mut Roff, first: &str, names_the_file: bool) {
    page.control("SH", ["SEE ALSO"]);
    let file = if names_the_file { ", moesync.toml(5)" } else { "" };
    page.text([roman(format!("{first}{file}"))]);
}

/// moesync.toml(5).
fn configuration() -> String {
    let schema = config::schema();
    let mut page = Roff::new();
    page.control("TH", ["moesync.toml", "5", "", &format!("moesync {}", env!("CARGO_PKG_VERSION")), "moesync"]);
    page.control("SH", ["NAME"]).text([roman("moesync.toml - the configuration of moesync")]);
    page.control("SH", ["DESCRIPTION"]);
    paragraphs(&mut page, description(&schema));
    for (name, table) in properties(&schema) {
        let (heading, keys) = match table.get("items") {
            Some(items) => (format!("[[{name}]]"), items),
            None => (format!("[{name}]"), table),
        };
        page.control("SH", [heading.as_str()]);
        paragraphs(&mut page, description(table));
        let required: Vec<_> =
            keys.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, value) in properties(keys) {
            add_key(&mut page, key, value, required.contains(&key.as_str()));
            for (inner, value) in properties(value) {
                add_key(&mut page, &format!("{key}.{inner}"), value, false);
            }
        }
    }
    page.control("SH", ["EXAMPLES"]);
    as_it_is(&mut page, EXAMPLE.lines());
    add_pairs(&mut page, "ENVIRONMENT", &ENVIRONMENT);
    add_pairs(&mut page, "FILES", &FILES);
    see_also(&mut page, "moesync(1), moesync-init(1), moesync-check(1), moesync-config-show(1)", false);
    page.to_roff()
}

/// The smallest configuration.
const EXAMPLE: &str = r#"[[workspaces]]
name = "acme"
app_id = "YOUR-APP-ID"
data_center = "01"
timezone = "Europe/Berlin"
secret_key_file = "./secret-key"

[[destinations]]
name = "archive"
url = "file://./archive"

[[reports]]
source = "campaign_report"
name = "Report test"
schedule = { every = "day", at = "09:30" }"#;

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

fn paragraphs(page: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n") {
        page.control("PP", []).text([roman(plain(paragraph))]);
    }
}

/// Text without the marks of code.
fn plain(text: &str) -> String {
    text.replace('`', "").replace('\n', " ")
}

fn add_key(page: &mut Roff, key: &str, schema: &Value, is_required: bool) {
    let default = match (schema.get("default"), is_required) {
        (_, true) => " (required)".to_owned(),
        (Some(default), false) => format!(" (default: {default})"),
        (None, false) => String::new(),
    };
    page.control("TP", []).text([bold(key), italic(default)]).text([roman(plain(description(schema)))]);
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
        page.text([roman(format!("One of {}.", words.join(", ")))]);
    }
}
