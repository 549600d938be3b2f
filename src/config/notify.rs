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
    mail::{Email, MailServer, Written},
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
    /// `teams`: a card for a Workflow of Microsoft Teams. `email`: a message by SMTP. `ping`: a dead man's switch such as
    /// healthchecks.io.
    kind: TargetKind,
    /// File with the address: of `email`, `smtps://HOST:465` (TLS) or `smtp://HOST:587` (STARTTLS). Exactly one of
    /// `url_file`, `url_env` and `url` is required.
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
    /// Sender, such as `moesync@example.com` or `moesync <moesync@example.com>`. Only `email`, where it is required.
    from: Option<String>,
    /// Recipients. Only `email`, where at least one is required.
    to: Option<Vec<String>>,
    /// User of the mail server, if it asks for one. Only `email`.
    username: Option<String>,
    /// File with the password of `username`. Only `email`, where exactly one of `password_file`, `password_env` and `password`
    /// is required with `username`.
    password_file: Option<String>,
    /// Environment variable with the password. Only `email`.
    password_env: Option<String>,
    /// The password itself. Only `email`.
    password: Option<secret::Raw>,
    /// Whether a connection to an `smtp://` address is encrypted, by STARTTLS. `false` is only for loopback addresses. Only
    /// `email`.
    #[schemars(extend("default" = true))]
    starttls: Option<bool>,
    /// Events that are sent: `alarms` (all) or single alarms by name, `stored` (every stored object), `tables`
    /// (every date whose tables are made), `schema_changed` (a table's columns change), `summary` (a daily summary). Default:
    /// all of them (`webhook`), `alarms` (`slack`, `teams`, `email`). Not for `ping`.
    events: Option<Vec<EventWord>>,
    /// Time between pings, from `1m` to `1d`. Only `ping`.
    #[schemars(extend("default" = PING_EVERY))]
    every: Option<Duration>,
    /// Whether address and secret files that every user of the machine may read are accepted.
    #[serde(default)]
    allow_world_readable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", expecting = "\"webhook\", \"slack\", \"teams\", \"email\" or \"ping\"")]
enum TargetKind {
    Webhook,
    Slack,
    Teams,
    Email,
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
    /// A card, to the webhook of a Workflow of Microsoft Teams.
    Teams {
        /// The events that are sent.
        events: Events,
    },
    /// A message by SMTP.
    Email {
        /// Server, sender and recipients.
        email: Box<Email>,
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
            Channel::Webhook { events, .. }
            | Channel::Slack { events }
            | Channel::Teams { events }
            | Channel::Email { events, .. } => Some(events),
            Channel::Ping { .. } => None,
        }
    }

    /// Checks that its secrets can be read and have the right form.
    ///
    /// # Errors
    /// The first that cannot, or has not. The error does not show it.
    pub fn check_secrets(&self) -> Result<(), Problem> {
        match &self.channel {
            Channel::Email { email, .. } => {
                self.mail_server(email)?;
                self.password(email).map(drop)
            }
            _ => {
                self.url()?;
                self.key().map(drop)
            }
        }
    }

    /// The present address, of every kind but e-mail.
    ///
    /// # Errors
    /// If it cannot be read or is not an address. The error does not show it.
    pub fn url(&self) -> Result<Url, Problem> {
        self.parsed(|text| parse_address(text, self.allow_http))
    }

    /// The present mail server of an e-mail target.
    ///
    /// # Errors
    /// If it cannot be read or is not the address of a mail server. The error does not show it.
    pub fn mail_server(&self, email: &Email) -> Result<MailServer, Problem> {
        self.parsed(|text| MailServer::parse(text, email.starttls))
    }

    fn parsed<T>(&self, parse: impl FnOnce(&SecretString) -> Result<T, &'static str>) -> Result<T, Problem> {
        let of = |problem| Problem::new(format!("the address of notify target `{}`: {problem}", self.name));
        let text = self.address.resolve().map_err(|problem| of(problem.to_string()))?;
        parse(&text).map_err(|reason| of(reason.to_owned()))
    }

    /// The present password of an e-mail target; `None` if it has no user.
    ///
    /// # Errors
    /// If it cannot be read. The error does not show it.
    pub fn password(&self, email: &Email) -> Result<Option<SecretString>, Problem> {
        let of = |problem| Problem::new(format!("the password of notify target `{}`: {problem}", self.name));
        email.login.as_ref().map(|login| login.password.resolve().map_err(of)).transpose()
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
            Channel::Email { email, .. } => email.login.as_ref().map(|login| &login.password),
            Channel::Slack { .. } | Channel::Teams { .. } | Channel::Ping { .. } => None,
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
            let parsed = match self.kind {
                TargetKind::Email => MailServer::parse(url, self.starttls.unwrap_or(true)).map(drop),
                _ => parse_address(url, allow_http).map(drop),
            };
            mistakes.keep(parsed.map_err(|reason| at.key("url").problem(reason)));
        }
        let secret = Given::new("secret", &self.secret_file, &self.secret_env, &self.secret);
        let secret = mistakes.keep(secret.check(self.allow_world_readable, at, env));
        if let Some(Some(SecretSource::Value(text))) = &secret {
            mistakes.keep(signing_key(text).map_err(|reason| at.key("secret").problem(reason)));
        }
        let password = Given::new("password", &self.password_file, &self.password_env, &self.password);
        let password = mistakes.keep(password.check(self.allow_world_readable, at, env));
        mistakes.keep(self.check_keys(at));
        let channel = secret.zip(password);
        let channel = channel.and_then(|(secret, password)| mistakes.keep(self.check_channel(secret, password, at)));
        mistakes.finish(|| Some(Target { name: name?, address: address?, allow_http, channel: channel? }))
    }

    /// A mistake if there is a key that targets of this kind do not have.
    fn check_keys(&self, at: &KeyPath<'_>) -> Result<(), Problem> {
        let (kind, secret, mail, events, every) = match self.kind {
            TargetKind::Webhook => ("webhook", true, false, true, false),
            TargetKind::Slack => ("slack", false, false, true, false),
            TargetKind::Teams => ("teams", false, false, true, false),
            TargetKind::Email => ("email", false, true, true, false),
            TargetKind::Ping => ("ping", false, false, false, true),
        };
        let keys = [
            ("secret_file", secret, self.secret_file.is_some()),
            ("secret_env", secret, self.secret_env.is_some()),
            ("secret", secret, self.secret.is_some()),
            ("from", mail, self.from.is_some()),
            ("to", mail, self.to.is_some()),
            ("username", mail, self.username.is_some()),
            ("password_file", mail, self.password_file.is_some()),
            ("password_env", mail, self.password_env.is_some()),
            ("password", mail, self.password.is_some()),
            ("starttls", mail, self.starttls.is_some()),
            ("events", events, self.events.is_some()),
            ("every", every, self.every.is_some()),
        ];
        match keys.iter().find(|(_, is_known, is_given)| *is_given && !is_known) {
            Some((key, ..)) => {
                let rule = format_args!("a target of kind {kind:?} does not have this key; remove it");
                Err(at.key(*key).problem(rule))
            }
            None => Ok(()),
        }
    }

    fn check_channel(
        &self,
        secret: Option<SecretSource>,
        password: Option<SecretSource>,
        at: &KeyPath<'_>,
    ) -> Result<Channel, Mistakes> {
        Ok(match self.kind {
            TargetKind::Webhook => {
                let secret = secret
                    .ok_or_else(|| at.problem("no secret; give exactly one of secret_file, secret_env and secret"))?;
                let all =
                    Events { stored: true, tables: true, schema_changed: true, summary: true, ..Events::alarms() };
                Channel::Webhook { secret, events: self.check_events(at, all)? }
            }
            TargetKind::Slack => Channel::Slack { events: self.check_events(at, Events::alarms())? },
            TargetKind::Teams => Channel::Teams { events: self.check_events(at, Events::alarms())? },
            TargetKind::Email => {
                let written = Written {
                    from: self.from.as_deref(),
                    to: self.to.as_deref(),
                    username: self.username.as_deref(),
                    password,
                    starttls: self.starttls,
                };
                let email = Box::new(written.check(at)?);
                Channel::Email { email, events: self.check_events(at, Events::alarms())? }
            }
            TargetKind::Ping => {
                let every = self.every.clone().unwrap_or_else(|| Duration::new(PING_EVERY));
                Channel::Ping { every: every.check(SignedDuration::from_mins(1)..=DAY, &at.key("every"))? }
            }
        })
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
