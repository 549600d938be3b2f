//! A `[[notify]]` table: a notification target.
//!
//! Addresses are secrets: anyone who has the URL of a Slack channel can post there.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::SignedDuration;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::Deserialize;
use url::Url;

use super::{
    Mistakes, Problem, address,
    document::{KeyPath, alternatives, did_you_mean},
    secret::{self, Given, SecretSource},
    values::{DAY, Duration, name, written},
    variables::Env,
};
use crate::alarm_kind::AlarmKind;

/// How often a target is pinged. `Raw` keeps whether it is given: other kinds refuse it.
const PING_EVERY: &str = "5m";

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Raw {
    /// Name in every message about it. The ledger records under this name which notifications were sent.
    pub(super) name: String,
    /// `webhook`: signed JSON. `slack`: text for incoming webhooks of Slack and compatible services, such as Mattermost.
    /// `ping`: a dead man's switch such as healthchecks.io.
    kind: TargetKind,
    /// File with the address. Exactly one of `url_file`, `url_env` and `url` is required.
    url_file: Option<String>,
    /// Environment variable with the address.
    url_env: Option<String>,
    /// The address itself. It is a credential: anyone who has it can post there.
    url: Option<secret::Raw>,
    /// File with the secret that signs messages. Only `webhook`, where exactly one of `secret_file`, `secret_env` and
    /// `secret` is required.
    secret_file: Option<String>,
    /// Environment variable with the secret that signs messages. Only `webhook`.
    secret_env: Option<String>,
    /// The secret itself that signs messages: `whsec_` and 24 to 64 bytes in base64. Only `webhook`.
    secret: Option<secret::Raw>,
    /// Events that are sent: `alarms` (all) or single alarms by name, `stored` (every stored object), `tables`
    /// (every date whose tables are made), `schema_changed` (a table's columns change), `summary` (a daily summary). Default:
    /// all of them (`webhook`), `alarms` (`slack`). Not for `ping`.
    events: Option<Vec<EventWord>>,
    /// Time between pings, from `1m` to `1d`. Only `ping`.
    #[schemars(extend("default" = PING_EVERY))]
    every: Option<Duration>,
    /// Whether address and secret files that every user of the machine may read are accepted.
    #[serde(default)]
    allow_world_readable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"webhook\", \"slack\" or \"ping\"")]
enum TargetKind {
    Webhook,
    Slack,
    Ping,
}

written!(EventWord, "an event such as \"alarms\"", integer: false, schema: {
    "type": "string", "enum": event_words()
});

/// The words of `events`.
fn event_words() -> Vec<&'static str> {
    ["alarms", "stored", "tables", "schema_changed", "summary"]
        .into_iter()
        .chain(AlarmKind::ALL.map(AlarmKind::as_str))
        .collect()
}

/// A notification target.
#[derive(Debug, Clone)]
pub struct Target {
    /// Name in the configuration, in the ledger and in every message about it.
    pub name: String,
    /// Its address; a secret.
    pub address: SecretSource,
    /// Whether the address may begin with `http://` for hosts other than loopback.
    pub allow_http: bool,
    /// Its kind, with the settings of that kind.
    pub channel: Channel,
}

/// How a target is notified, and of which events.
#[derive(Debug, Clone)]
pub enum Channel {
    /// Signed JSON, one request for each event.
    Webhook {
        /// The key that signs requests.
        secret: SecretSource,
        /// The events that are sent.
        events: Events,
    },
    /// Text, to an address that accepts Slack's incoming webhooks.
    Slack {
        /// The events that are sent.
        events: Events,
    },
    /// A dead man's switch: at regular intervals a ping that reports success or failure.
    Ping {
        /// Time between pings.
        every: SignedDuration,
    },
}

/// Which events a target receives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Events {
    /// These alarms.
    pub alarms: BTreeSet<AlarmKind>,
    /// Every stored object.
    pub stored: bool,
    /// Every date whose tables are made.
    pub tables: bool,
    /// Every change of a table's columns.
    pub schema_changed: bool,
    /// The daily summary, also of days on which no object was stored.
    pub summary: bool,
}

impl Events {
    /// All alarms and nothing else.
    pub fn alarms() -> Self {
        Events { alarms: AlarmKind::ALL.into(), ..Events::default() }
    }
}

impl Target {
    /// The events it receives; `None` if it is only pinged.
    pub fn events(&self) -> Option<&Events> {
        match &self.channel {
            Channel::Webhook { events, .. } | Channel::Slack { events } => Some(events),
            Channel::Ping { .. } => None,
        }
    }

    /// The present address.
    ///
    /// # Errors
    /// If it cannot be read or is not an address. The error does not show it.
    pub fn url(&self) -> Result<Url, Problem> {
        let of = |problem| Problem::new(format!("the address of notify target `{}`: {problem}", self.name));
        let text = self.address.resolve().map_err(|problem| of(problem.to_string()))?;
        parse_address(&text, self.allow_http).map_err(|reason| of(reason.to_owned()))
    }

    /// The present key that signs messages; `None` for kinds that sign nothing.
    ///
    /// # Errors
    /// If it cannot be read or is not a key. The error does not show it.
    pub fn key(&self) -> Result<Option<SecretSlice<u8>>, Problem> {
        let Channel::Webhook { secret, .. } = &self.channel else { return Ok(None) };
        let of = |problem| Problem::new(format!("the secret of notify target `{}`: {problem}", self.name));
        let text = secret.resolve().map_err(|problem| of(problem.to_string()))?;
        signing_key(&text).map(Some).map_err(|reason| of(reason.to_owned()))
    }

    /// Where the target's secrets are read from.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let secret = match &self.channel {
            Channel::Webhook { secret, .. } => Some(secret),
            Channel::Slack { .. } | Channel::Ping { .. } => None,
        };
        [&self.address].into_iter().chain(secret)
    }
}

fn parse_address(text: &SecretString, allow_http: bool) -> Result<Url, &'static str> {
    let url = address::parse(text.expose_secret()).ok_or("expected an address that begins with https://")?;
    match address::is_permitted(&url, allow_http) {
        true => Ok(url),
        false => Err(address::UNENCRYPTED),
    }
}

/// The key in a secret of the Standard Webhooks form (https://www.standardwebhooks.com).
fn signing_key(text: &SecretString) -> Result<SecretSlice<u8>, &'static str> {
    let text = text.expose_secret();
    let encoded = text.strip_prefix("whsec_").unwrap_or(text);
    let key = STANDARD.decode(encoded).ok().filter(|key| (24..=64).contains(&key.len()));
    let hint = "expected \"whsec_\" and 24 to 64 bytes in base64; `echo whsec_$(openssl rand -base64 32)` makes one";
    key.map(SecretSlice::from).ok_or(hint)
}

impl Raw {
    pub(super) fn check(&self, at: &KeyPath<'_>, allow_http: bool, env: &Env) -> Result<Target, Mistakes> {
        let mut mistakes = Mistakes::default();
        let name = mistakes.keep(name(&self.name, &at.key("name")));
        let address = Given::new("url", &self.url_file, &self.url_env, &self.url);
        let address = address.check(self.allow_world_readable, at, env).and_then(|address| {
            address.ok_or_else(|| at.problem("no address; give exactly one of url_file, url_env and url"))
        });
        let address = mistakes.keep(address);
        if let Some(SecretSource::Value(url)) = &address {
            mistakes.keep(parse_address(url, allow_http).map_err(|reason| at.key("url").problem(reason)));
        }
        let secret = Given::new("secret", &self.secret_file, &self.secret_env, &self.secret);
        let secret = mistakes.keep(secret.check(self.allow_world_readable, at, env));
        if let Some(Some(SecretSource::Value(text))) = &secret {
            mistakes.keep(signing_key(text).map_err(|reason| at.key("secret").problem(reason)));
        }
        let channel = secret.and_then(|secret| mistakes.keep(self.check_channel(secret, at)));
        mistakes.finish(|| Some(Target { name: name?, address: address?, allow_http, channel: channel? }))
    }

    fn check_channel(&self, secret: Option<SecretSource>, at: &KeyPath<'_>) -> Result<Channel, Problem> {
        let kind = match self.kind {
            TargetKind::Webhook => "webhook",
            TargetKind::Slack => "slack",
            TargetKind::Ping => "ping",
        };
        let useless = |key: &str| {
            Err(at.key(key).problem(format_args!("a target of kind {kind:?} does not have this key; remove it")))
        };
        let channel = match (self.kind, secret) {
            (TargetKind::Webhook, None) => {
                return Err(at.problem("no secret; give exactly one of secret_file, secret_env and secret"));
            }
            (TargetKind::Slack | TargetKind::Ping, Some(_)) => {
                let given = [("secret_file", self.secret_file.is_some()), ("secret_env", self.secret_env.is_some())];
                return useless(given.iter().find(|(_, given)| *given).map_or("secret", |(key, _)| key));
            }
            (TargetKind::Webhook, Some(secret)) => {
                let all =
                    Events { stored: true, tables: true, schema_changed: true, summary: true, ..Events::alarms() };
                Channel::Webhook { secret, events: self.check_events(at, all)? }
            }
            (TargetKind::Slack, None) => Channel::Slack { events: self.check_events(at, Events::alarms())? },
            (TargetKind::Ping, None) => {
                let every = self.every.clone().unwrap_or_else(|| Duration::new(PING_EVERY));
                Channel::Ping { every: every.check(SignedDuration::from_mins(1)..=DAY, &at.key("every"))? }
            }
        };
        match channel {
            Channel::Ping { .. } if self.events.is_some() => useless("events"),
            Channel::Webhook { .. } | Channel::Slack { .. } if self.every.is_some() => useless("every"),
            _ => Ok(channel),
        }
    }

    /// The events; which ones are the default depends on the kind.
    fn check_events(&self, at: &KeyPath<'_>, default: Events) -> Result<Events, Problem> {
        let Some(words) = &self.events else { return Ok(default) };
        if words.is_empty() {
            return Err(at.key("events").problem("must not be empty; leave it out for the default"));
        }
        let mut events = Events::default();
        for (index, EventWord(word)) in words.iter().enumerate() {
            match (word.as_str(), AlarmKind::parse(word)) {
                ("alarms", _) => events.alarms.extend(Events::alarms().alarms),
                ("stored", _) => events.stored = true,
                ("tables", _) => events.tables = true,
                ("schema_changed", _) => events.schema_changed = true,
                ("summary", _) => events.summary = true,
                (_, Some(kind)) => events.alarms.extend([kind]),
                (_, None) => {
                    let known = alternatives(event_words());
                    let nearest = did_you_mean(word, event_words());
                    let at = at.key("events").index(index);
                    return Err(at.problem(format_args!("expected {known}, found {word:?}{nearest}")));
                }
            }
        }
        Ok(events)
    }
}
