//! Whom to tell what: the targets of `[[notify]]`, and what makes an address and a key of one usable.
//!
//! This file owns the words for what can be told. It must not know how it is told, nor when. An address is a secret:
//! anyone who has a Slack channel's URL can post there.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::SignedDuration;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use url::Url;

use super::{Problem, SecretSource, address};
use crate::alarm_kind::AlarmKind;

/// A notification target.
#[derive(Debug, Clone)]
pub struct Target {
    /// Name in the configuration, in the ledger and in every message about it.
    pub name: String,
    /// Its address; a secret.
    pub address: SecretSource,
    /// Whether the address may begin with `http://` though it is not loopback.
    pub allow_http: bool,
    /// In which manner it is told.
    pub channel: Channel,
}

/// How a target is told, and of what.
#[derive(Debug, Clone)]
pub enum Channel {
    /// Signed JSON, one request an event.
    Webhook {
        /// What it is signed with.
        secret: SecretSource,
        /// What it is told of.
        events: Events,
    },
    /// Text, to an address that understands Slack's incoming webhooks.
    Slack {
        /// What it is told of.
        events: Events,
    },
    /// A dead man's switch: told at regular times that all is well, or that it is not.
    Ping {
        /// How often.
        every: SignedDuration,
    },
}

/// What a target is told of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Events {
    /// These alarms.
    pub alarms: BTreeSet<AlarmKind>,
    /// Every object that was stored.
    pub stored: bool,
    /// Once a day how many were stored, though it be none.
    pub summary: bool,
}

impl Events {
    /// All alarms and nothing else.
    pub fn alarms() -> Self {
        Events { alarms: AlarmKind::ALL.into(), stored: false, summary: false }
    }
}

impl Target {
    /// What it is told of; nothing where it is only pinged.
    pub fn events(&self) -> Option<&Events> {
        match &self.channel {
            Channel::Webhook { events, .. } | Channel::Slack { events } => Some(events),
            Channel::Ping { .. } => None,
        }
    }

    /// The address as it is now.
    ///
    /// # Errors
    /// When it cannot be had or is none. Never shows it.
    pub fn url(&self) -> Result<Url, Problem> {
        let of = |problem| Problem::new(format!("the address of notify target `{}`: {problem}", self.name));
        let text = self.address.resolve().map_err(|problem| of(problem.to_string()))?;
        address(&text, self.allow_http).map_err(|reason| of(reason.to_owned()))
    }

    /// The key that signs what it is told, as it is now; `None` where nothing is signed.
    ///
    /// # Errors
    /// When it cannot be had or is none. Never shows it.
    pub fn key(&self) -> Result<Option<SecretSlice<u8>>, Problem> {
        let Channel::Webhook { secret, .. } = &self.channel else { return Ok(None) };
        let of = |problem| Problem::new(format!("the secret of notify target `{}`: {problem}", self.name));
        let text = secret.resolve().map_err(|problem| of(problem.to_string()))?;
        signing_key(&text).map(Some).map_err(|reason| of(reason.to_owned()))
    }

    /// The secrets of the target that are read later: their places.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let secret = match &self.channel {
            Channel::Webhook { secret, .. } => Some(secret),
            Channel::Slack { .. } | Channel::Ping { .. } => None,
        };
        [&self.address].into_iter().chain(secret)
    }
}

/// A usable address, or what is wrong with it.
pub(super) fn address(text: &SecretString, allow_http: bool) -> Result<Url, &'static str> {
    let url = address::parse(text.expose_secret()).ok_or("expected an address that begins with https://")?;
    match address::is_permitted(&url, allow_http) {
        true => Ok(url),
        false => Err(address::UNENCRYPTED),
    }
}

/// The key behind a secret in the form of the Standard Webhooks specification, or what is wrong with it.
pub(super) fn signing_key(text: &SecretString) -> Result<SecretSlice<u8>, &'static str> {
    let text = text.expose_secret();
    let encoded = text.strip_prefix("whsec_").unwrap_or(text);
    let key = STANDARD.decode(encoded).ok().filter(|key| (24..=64).contains(&key.len()));
    let hint = "expected \"whsec_\" and 24 to 64 bytes in base64; `echo whsec_$(openssl rand -base64 32)` makes one";
    key.map(SecretSlice::from).ok_or(hint)
}
