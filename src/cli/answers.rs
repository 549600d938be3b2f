//! The answers of `moesync init`, and the configuration that is written from them.

use std::collections::BTreeMap;

use jiff::civil;

use crate::config::{self, Config, MonthDay, Schedule};

/// What the configuration is written from. A missing answer has a valid stand-in until it is given.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub(super) workspace: String,
    pub(super) app_id: String,
    /// `data_center` or `base_url`, and its value.
    pub(super) api: (&'static str, String),
    pub(super) timezone: String,
    /// The path of the file with the key.
    pub(super) key_file: String,
    /// A folder or the URL of a destination.
    pub(super) destination: String,
    pub(super) reports: Vec<ReportAnswer>,
}

#[derive(Debug, Clone)]
pub(super) struct ReportAnswer {
    pub(super) name: String,
    /// As in `week monday 09:30`.
    pub(super) schedule: String,
}

/// The forms of a schedule, for questions and errors.
pub(super) const SCHEDULES: &str = "day 09:30, week monday 09:30, month 1 09:30 or month last 09:30";

impl Default for Answers {
    fn default() -> Self {
        Answers {
            workspace: "main".to_owned(),
            app_id: "APP".to_owned(),
            api: ("data_center", "01".to_owned()),
            timezone: "UTC".to_owned(),
            key_file: "./secret-key".to_owned(),
            destination: "./archive".to_owned(),
            reports: Vec::new(),
        }
    }
}

impl Answers {
    /// The configuration, checked. `name` is that of its file.
    ///
    /// # Errors
    /// What is wrong with the answers, in the words of the configuration, one line for each.
    pub(super) fn check(&self, name: &str) -> Result<Config, String> {
        let mut answers = self.clone();
        if answers.reports.is_empty() {
            answers.reports.push(ReportAnswer { name: "report".to_owned(), schedule: "day 09:30".to_owned() });
        }
        config::load_text(name, &answers.text()?, BTreeMap::new())
            .map_err(|mistakes| mistakes.iter().map(|mistake| mistake.reason()).collect::<Vec<_>>().join("\n"))
    }

    /// The configuration as TOML.
    ///
    /// # Errors
    /// If a schedule has none of the forms.
    pub(super) fn text(&self) -> Result<String, String> {
        let Answers { workspace, app_id, api: (api, address), timezone, key_file, .. } = self;
        let mut text = format!(
            "#:schema ./moesync.schema.json\n\
             # Written by `moesync init`. Every key: docs/configuration.md, or `man moesync.toml`. The line above makes editors\n\
             # complete keys, once `moesync schema > moesync.schema.json` has been run here.\n\n\
             [[workspaces]]\nname = {}\napp_id = {}\n{api} = {}\ntimezone = {}\nsecret_key_file = {}\n\n\
             [[destinations]]\nname = \"archive\"\nurl = {}\n",
            quoted(workspace),
            quoted(app_id),
            quoted(address),
            quoted(timezone),
            quoted(key_file),
            quoted(&self.destination_url()),
        );
        for ReportAnswer { name, schedule } in &self.reports {
            let (name, schedule) = (quoted(name), schedule_of(schedule)?);
            text += &format!(
                "\n[[reports]]\nsource = \"campaign_report\"\nname = {name}\ndestination = \"archive\"\nschedule = {schedule}\n"
            );
        }
        Ok(text)
    }

    /// A URL as it is; otherwise the path of a folder.
    fn destination_url(&self) -> String {
        let given = &self.destination;
        match given {
            url if url.contains("://") => url.clone(),
            path if path.starts_with('/') || path.starts_with("./") || path.starts_with("../") => {
                format!("file://{path}")
            }
            path => format!("file://./{path}"),
        }
    }
}

/// A string in TOML. A `${` in it is not a variable.
fn quoted(text: &str) -> String {
    toml::Value::String(text.replace("${", "$${")).to_string()
}

/// The inline table of a schedule such as `week monday 09:30`. The values are checked by the configuration.
fn schedule_of(words: &str) -> Result<String, String> {
    let words: Vec<_> = words.split_whitespace().map(str::to_lowercase).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let day = |on: &str| on.parse::<i64>().map_or_else(|_| quoted(on), |day| day.to_string());
    let days = |on: &str| match on.split(',').map(day).collect::<Vec<_>>().as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    match words.as_slice() {
        ["day", at] => Ok(format!("{{ every = \"day\", at = {} }}", quoted(at))),
        [every @ ("week" | "month"), on, at] => {
            Ok(format!("{{ every = \"{every}\", on = {}, at = {} }}", days(on), quoted(at)))
        }
        _ => Err(format!("expected {SCHEDULES}")),
    }
}

/// A schedule in the form of an answer.
pub(super) fn written(schedule: &Schedule) -> String {
    let time = |at: &civil::Time| at.strftime("%H:%M").to_string();
    match schedule {
        Schedule::Daily { at } => format!("day {}", time(at)),
        Schedule::Weekly { on, at } => {
            let days: Vec<_> = on.iter().map(|day| format!("{day:?}").to_lowercase()).collect();
            format!("week {} {}", days.join(","), time(at))
        }
        Schedule::Monthly { on: MonthDay::Last, at } => format!("month last {}", time(at)),
        Schedule::Monthly { on: MonthDay::Day(day), at } => format!("month {day} {}", time(at)),
        Schedule::Once { date, at } => {
            format!("once {date}{}", at.as_ref().map(|at| format!(" {}", time(at))).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(schedule: &str) -> Answers {
        let name = "Report ${x} \"test\"".to_owned();
        Answers { reports: vec![ReportAnswer { name, schedule: schedule.to_owned() }], ..Answers::default() }
    }

    #[test]
    fn the_answers_become_a_configuration_that_means_the_same() {
        for (schedule, means) in [
            ("day 9:30", "Daily { at: 09:30:00 }"),
            ("Week Monday 09:30", "Weekly { on: [Monday], at: 09:30:00 }"),
            ("week monday,friday 09:30", "Weekly { on: [Monday, Friday], at: 09:30:00 }"),
            ("month 31 23:00", "Monthly { on: Day(31), at: 23:00:00 }"),
            ("month last 00:00", "Monthly { on: Last, at: 00:00:00 }"),
        ] {
            let config = answers(schedule).check("moesync.toml").unwrap();
            assert_eq!(format!("{:?}", config.reports[0].schedule), means);
            assert_eq!(config.reports[0].name, "Report ${x} \"test\"", "neither a variable nor the end of the string");
        }
        for (given, url) in
            [("archive", "file://./archive"), ("../a", "file://../a"), ("/a", "file:///a"), ("s3://b/p", "s3://b/p")]
        {
            let answers = Answers { destination: given.to_owned(), ..answers("day 09:30") };
            assert_eq!(answers.destination_url(), url);
            answers.check("moesync.toml").unwrap();
        }
    }

    #[test]
    fn a_wrong_answer_is_refused_in_the_words_of_the_configuration() {
        let wrong = |answers: Answers| answers.check("moesync.toml").unwrap_err();
        let default = Answers::default;
        insta::assert_snapshot!([
            wrong(Answers { workspace: "tables".into(), ..default() }),
            wrong(Answers { app_id: "a b".into(), ..default() }),
            wrong(Answers { api: ("data_center", "1".into()), ..default() }),
            wrong(Answers { api: ("base_url", "http://moengage.example".into()), ..default() }),
            wrong(Answers { timezone: "Berlin".into(), ..default() }),
            wrong(Answers { destination: "ftp://host".into(), ..default() }),
            wrong(answers("week moonday 09:30")),
            wrong(answers("month 32 09:30")),
            wrong(answers("day 25:00")),
            wrong(answers("daily")),
        ].join("\n"), @r#"
        workspaces[0].name: the folder tables/ of a destination is that of all tables; choose another name
        workspaces[0].app_id: expected MoEngage's workspace id, without spaces or colons
        workspaces[0].data_center: expected "01", "02", "03", "04", "05", "06" or "101", found "1"; did you mean "01"?
        workspaces[0].base_url: http:// is not encrypted and only allowed for loopback addresses; use https://, or set allow_http = true in [network]
        workspaces[0].timezone: no zone is called "Berlin"; did you mean "Europe/Berlin"?
        destinations[0].url: expected file:///PATH, file://./PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX
        reports[0].schedule.on: expected a day of the week such as "monday", found "moonday"; did you mean "monday"?
        reports[0].schedule.on: expected a day of the month from 1 to 31, or "last", found "32"
        reports[0].schedule.at: expected a time such as "09:30", found "25:00"
        expected day 09:30, week monday 09:30, month 1 09:30 or month last 09:30
        "#);
    }
}
