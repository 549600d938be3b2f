//! The tables inside archives: files, headings and rows as in real exports.
//!
//! MoEngage does not document them; names and spellings are those that public parsers of real files expect. This file
//! must not know archive formats.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write},
};

use jiff::{SignedDuration, Timestamp, ToSpan as _, civil::Date, tz::TimeZone};
use rand::{Rng, rngs::Xoshiro256PlusPlus};

use super::{
    library::Library,
    numbers::{CampaignDay, Numbers, percentage},
    recipe::{ExportContents, Recipe, generator},
};

/// One file of an export.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    /// `None` is every channel, with the columns that all of them have.
    channel: Option<&'static str>,
    is_flow: bool,
    /// Its share of the rows.
    percent: u64,
}

const fn table(channel: &'static str, is_flow: bool, percent: u64) -> Table {
    Table { channel: Some(channel), is_flow, percent }
}

/// One for each channel, and those of flows.
pub(super) const TABLES: [Table; 6] = [
    table("PUSH", false, 40),
    table("EMAIL", false, 25),
    table("SMS", false, 12),
    table("WHATSAPP", false, 8),
    table("EMAIL", true, 9),
    table("PUSH", true, 6),
];

/// All channels in one table.
pub(super) const MIXED: Table = Table { channel: None, is_flow: false, percent: 100 };

const LEAD: [&str; 16] = [
    "Campaign ID",
    "Campaign Name",
    "Campaign Type",
    "Campaign Delivery Type",
    "Campaign Channel",
    "Campaign Status",
    "Campaign Sent Time",
    "Parent Campaign ID",
    "Flows Name",
    "Variation",
    "Locale",
    "Date",
    "Tag Category: Region",
    "Conversion Goal 1 Name",
    "Conversion Goal 1 Conversions (Total, Click-through)",
    "Conversion Goal 1 Revenue",
];
const PUSH: [&str; 11] = [
    "All Platform Sent",
    "All Platform Impressions",
    "All Platform Clicks",
    "All Platform CTR",
    "Android Sent",
    "Android Impressions",
    "Android Clicks",
    "iOS Sent",
    "iOS Impressions",
    "iOS Clicks",
    "Delivery Rate",
];
// One heading ends with a space, as in real exports.
const EMAIL: [&str; 9] = [
    "Total Sent",
    "Total Delivered",
    "Total Open",
    "Unique opens",
    "Total clicks",
    "Unique clicks",
    "Hard bounces",
    "Unsubscribes ",
    "Email Subject",
];
// The same heading twice: of all clicks, and of unique ones.
const MESSAGE: [&str; 5] = ["Sent", "Total Delivered", "Clicks", "Clicks", "Delivery Rate"];
const ANY: [&str; 4] = ["Sent", "Impressions", "Clicks", "CTR"];

const THEMES: [&str; 8] = [
    "Welcome series",
    "Cart abandoned",
    "Flash sale, 24 h",
    "Price \"drop\"",
    "Año nuevo 50% off",
    "Win-back",
    "Für dich empfohlen",
    "Feature launch",
];
const TAGS: [&str; 4] = ["EU", "LATAM", "APAC", "MENA"];

impl Table {
    /// How many of `rows` rows are in it.
    pub(super) fn share(self, rows: u64) -> u64 {
        rows * self.percent / 100
    }

    /// Its path in the archive.
    pub(super) fn path(self, recipe: &Recipe) -> String {
        let date = recipe.date.strftime("%Y%m%d");
        let channel = self.channel.unwrap_or("ALL");
        match (&recipe.contents.name, self.is_flow) {
            (Some(name), false) => format!("{name}_{channel}_{date}.csv"),
            (Some(name), true) => format!("flows/{name}_FLOWS_{channel}_{date}.csv"),
            (None, is_flow) => {
                let kind = if is_flow { "Smart_Trigger" } else { "General" };
                let channel = match channel {
                    "PUSH" => "Push",
                    "EMAIL" => "Email",
                    other => other,
                };
                format!("{kind}_{channel}_{}_{date}.csv", recipe.app_id)
            }
        }
    }

    /// Writes the table with `rows` rows, at least one.
    pub(super) fn write(self, out: &mut impl Write, recipe: &Recipe, seed: u64, rows: u64) -> io::Result<()> {
        let random = &mut generator(seed, &self.path(recipe), recipe);
        let ExportContents { csv, timezone, campaigns, days, .. } = &recipe.contents;
        if csv.byte_order_mark {
            out.write_all("\u{feff}".as_bytes())?;
        }
        let mut line = CsvLine { separator: csv.separator, text: String::new(), field: String::new() };
        for heading in LEAD.iter().chain(self.headings()) {
            line.put(heading);
        }
        line.end(out)?;
        let rows = rows.max(1);
        let library = Library { seed, app_id: &recipe.app_id, campaigns };
        let from = recipe.date.saturating_sub(i64::from(*days).days());
        let to = recipe.date.saturating_sub(1.days());
        // Flows report by GMT.
        let zone = if self.is_flow { &TimeZone::UTC } else { timezone };
        let mut written = 0;
        for (channel, _) in CHANNELS.iter().filter(|(name, _)| self.channel.is_none_or(|channel| channel == *name)) {
            let most = if self.channel.is_some() { rows } else { rows / CHANNELS.len() as u64 };
            for day in library.days(channel, self.is_flow, from, to).take(usize::try_from(most).unwrap_or(usize::MAX)) {
                self.row(&mut line, channel, &day, zone, random);
                line.end(out)?;
                written += 1;
            }
        }
        for number in written..rows {
            let channel = self.channel.unwrap_or(CHANNELS[(number % CHANNELS.len() as u64) as usize].0);
            let day = self.invented(channel, number, to, random);
            self.row(&mut line, channel, &day, zone, random);
            line.end(out)?;
        }
        Ok(())
    }

    fn headings(self) -> &'static [&'static str] {
        match self.channel {
            Some("PUSH") => &PUSH,
            Some("EMAIL") => &EMAIL,
            Some(_) => &MESSAGE,
            None => &ANY,
        }
    }

    /// A campaign that exists in this archive only.
    fn invented(self, channel: &str, number: u64, date: Date, random: &mut Xoshiro256PlusPlus) -> CampaignDay {
        let (id, id_tail) = (random.next_u64(), random.next_u64() as u32);
        let mut below = |limit: u64| random.next_u64() % limit;
        let platforms = CHANNELS.iter().find(|(name, _)| *name == channel).map_or(1, |(_, platforms)| *platforms);
        let midnight = date.to_zoned(TimeZone::UTC).map(|midnight| midnight.timestamp()).unwrap_or_default();
        CampaignDay {
            id: format!("{id:016x}{id_tail:08x}"),
            name: format!("{} #{number}", THEMES[below(THEMES.len() as u64) as usize]),
            delivery_type: if self.is_flow { "EVENT_TRIGGERED" } else { "ONE_TIME" },
            status: "Sent",
            sent: (!self.is_flow).then(|| later(midnight, below(86_400))),
            parent_id: None,
            flow_name: self.is_flow.then(|| format!("Flow #{}", below(20))),
            date,
            platforms: (0..platforms)
                .map(|_| {
                    // Each is a share of an earlier one, as in a real funnel.
                    let attempted = 100 + below(200_000);
                    let sent = attempted - attempted * below(8) / 100;
                    let delivered = sent - sent * below(4) / 100;
                    let impressions = sent * (20 + below(75)) / 100;
                    let clicks = impressions * below(120) / 1000;
                    let conversions = clicks * below(200) / 1000;
                    Numbers { attempted, sent, delivered, impressions, clicks, conversions }
                })
                .collect(),
        }
    }

    fn row(
        self,
        line: &mut CsvLine,
        channel: &str,
        day: &CampaignDay,
        zone: &TimeZone,
        random: &mut Xoshiro256PlusPlus,
    ) {
        let mut below = |limit: u64| random.next_u64() % limit;
        let sum = day.platforms.iter().fold(Numbers::default(), |mut sum, part| {
            sum += *part;
            sum
        });
        let Numbers { sent, delivered, impressions, clicks, conversions, .. } = sum;
        line.put(&day.id);
        line.put(&day.name);
        line.put(match (self.is_flow, day.delivery_type) {
            (true, _) => "Flow",
            (false, "EVENT_TRIGGERED" | "LOCATION_TRIGGERED") => "Smart Trigger",
            (false, _) => "General",
        });
        line.put(day.delivery_type);
        line.put(channel);
        line.put(day.status);
        line.put(
            day.sent.map(|at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default(),
        );
        line.put(day.parent_id.as_deref().unwrap_or_default());
        line.put(day.flow_name.as_deref().unwrap_or_default());
        line.put("All Variations");
        line.put("All Locales");
        line.put(day.date);
        // A list as Python writes it.
        let first = below(TAGS.len() as u64) as usize;
        let tags: Vec<_> = TAGS.iter().skip(first).take(below(3) as usize).map(|tag| format!("'{tag}'")).collect();
        line.put(format_args!("[{}]", tags.join(", ")));
        line.put("Goal 1");
        line.put(conversions);
        match conversions * (5 + below(80)) {
            0 => line.put(""),
            revenue => line.put(with_thousands(revenue)),
        }
        let rate = |part, whole| format!("{:.1}%", percentage(part, whole));
        let ctr = format!("{:.1}", percentage(clicks, impressions));
        match self.channel {
            Some("PUSH") => {
                line.put(sent);
                line.put(impressions);
                line.put(clicks);
                line.put(ctr);
                for part in &day.platforms {
                    line.put(part.sent);
                    line.put(part.impressions);
                    line.put(part.clicks);
                }
                line.put(rate(impressions, sent));
            }
            Some("EMAIL") => {
                line.put(sent);
                line.put(delivered);
                line.put(impressions / 2);
                line.put(impressions / 3);
                line.put(clicks);
                line.put(clicks * 7 / 10);
                line.put(sent - delivered);
                line.put(clicks / 50);
                line.put(format_args!("{}: {} for you", day.name, below(90)));
            }
            Some(_) => {
                line.put(sent);
                line.put(delivered);
                line.put(clicks);
                line.put(clicks * 7 / 10);
                line.put(rate(delivered, sent));
            }
            None => {
                line.put(sent);
                line.put(impressions);
                line.put(clicks);
                line.put(ctr);
            }
        }
    }
}

/// The channels of exports, each with how many platforms it has.
const CHANNELS: [(&str, usize); 4] = [("PUSH", 2), ("EMAIL", 1), ("SMS", 1), ("WHATSAPP", 1)];

fn later(at: Timestamp, seconds: u64) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds as i64)).unwrap_or(at)
}

/// `12,345`.
fn with_thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A line that is being written, quoted as in RFC 4180.
struct CsvLine {
    separator: char,
    text: String,
    field: String,
}

impl CsvLine {
    fn put(&mut self, value: impl Display) {
        self.field.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.field, "{value}");
        if !self.text.is_empty() {
            self.text.push(self.separator);
        }
        if self.field.contains([self.separator, '"', '\r', '\n']) {
            self.text.push('"');
            self.text.push_str(&self.field.replace('"', "\"\""));
            self.text.push('"');
        } else {
            self.text.push_str(&self.field);
        }
    }

    fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.text.push_str("\r\n");
        out.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }
}
