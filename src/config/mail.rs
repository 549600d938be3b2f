//! The keys of a `[[notify]]` table of kind `email`.

use std::fmt;

use lettre::message::Mailbox;
use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use url::{Host, Url};

use super::{Mistakes, Problem, address::is_loopback_host, document::KeyPath, mistakes::each, secret::SecretSource};

/// What the address of a mail server looks like.
const EXPECTED: &str = "expected the address of a mail server: smtps://HOST:465 (TLS) or smtp://HOST:587 (STARTTLS)";

/// The settings of a target that is sent e-mail.
#[derive(Debug, Clone)]
pub struct Email {
    /// The sender.
    pub from: Mailbox,
    /// The recipients; at least one.
    pub to: Vec<Mailbox>,
    /// User and password, if the server asks for them.
    pub login: Option<Login>,
    /// Whether a connection to an `smtp://` address is encrypted by STARTTLS.
    pub starttls: bool,
}

/// User and password.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: SecretSource,
}

/// A mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailServer {
    /// Its name or IP address.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub encryption: Encryption,
}

/// How the connection to a mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// From the start.
    Tls,
    /// By the command STARTTLS, before anything else is sent.
    StartTls,
    /// Not at all; only for loopback addresses.
    None,
}

impl fmt::Display for MailServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.encryption == Encryption::Tls { "smtps" } else { "smtp" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl MailServer {
    /// The server at the address `text`. The error does not show it.
    pub(super) fn parse(text: &SecretString, starttls: bool) -> Result<Self, &'static str> {
        let url = Url::parse(text.expose_secret()).map_err(|_| EXPECTED)?;
        let is_bare = url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        if !is_bare {
            return Err("expected nothing but host and port; user and password have keys of their own");
        }
        let host = url.host_str().and_then(|host| Host::parse(host).ok()).ok_or(EXPECTED)?;
        let (encryption, port) = match (url.scheme(), starttls) {
            ("smtps", _) => (Encryption::Tls, 465),
            ("smtp", true) => (Encryption::StartTls, 587),
            ("smtp", false) if is_loopback_host(&host) => (Encryption::None, 25),
            ("smtp", false) => {
                return Err("starttls = false sends unencrypted, and is only allowed for loopback addresses");
            }
            _ => return Err(EXPECTED),
        };
        Ok(MailServer { host, port: url.port().unwrap_or(port), encryption })
    }
}

/// The keys of an e-mail target, as written.
pub(super) struct Written<'a> {
    pub(super) from: Option<&'a str>,
    pub(super) to: Option<&'a [String]>,
    pub(super) username: Option<&'a str>,
    pub(super) password: Option<SecretSource>,
    pub(super) starttls: Option<bool>,
}

impl Written<'_> {
    pub(super) fn check(self, at: &KeyPath<'_>) -> Result<Email, Mistakes> {
        let mut mistakes = Mistakes::default();
        let from = self.from.ok_or_else(|| at.problem("no sender; give from = \"moesync@example.com\""));
        let from = mistakes.keep(from.and_then(|text| mailbox(text, &at.key("from"))));
        let to = self.to.filter(|to| !to.is_empty());
        let to = to.ok_or_else(|| at.problem("no recipient; give to = [\"you@example.com\"]").into());
        let to = mistakes.keep(to.and_then(|to| each(to, &at.key("to"), |text, at| mailbox(text, at))));
        let login = match (self.username, self.password) {
            (Some(username), Some(password)) => Ok(Some(Login { username: username.to_owned(), password })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(at
                .problem("no password for the username; give exactly one of password_file, password_env and password")),
            (None, Some(_)) => Err(at.problem("no username for the password")),
        };
        let login = mistakes.keep(login);
        mistakes.finish(|| Some(Email { from: from?, to: to?, login: login?, starttls: self.starttls.unwrap_or(true) }))
    }
}

fn mailbox(text: &str, at: &KeyPath<'_>) -> Result<Mailbox, Problem> {
    // Only some mail servers accept addresses beyond ASCII.
    text.parse().ok().filter(|mailbox: &Mailbox| AsRef::<str>::as_ref(&mailbox.email).is_ascii()).ok_or_else(|| {
        at.problem(format_args!(
            "expected an address such as \"you@example.com\" or \"You <you@example.com>\", found {text:?}"
        ))
    })
}
