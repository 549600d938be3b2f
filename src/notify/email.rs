//! An event as an e-mail, sent by SMTP.

use std::{fs, time::Duration};

use jiff::Timestamp;
use lettre::{
    Message,
    message::{
        Mailboxes,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use tracing::warn;

use super::{MAX_REASON_BYTES, Refusal};
use crate::{
    config::{Email, Encryption, MailServer, Network, Target},
    event::{Event, Mood},
};

/// Timeout of one message, from connecting to the server's last reply. Some servers greet only after seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Timeout of the farewell: the message has arrived by then.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of characters of a subject's title.
const TITLE: usize = 150;

/// The certificate authorities of a `[network]` table, besides those of the system.
///
/// # Errors
///
/// If `ca_file` cannot be read.
pub(super) fn authorities(network: &Network) -> Result<Option<Certificate>, Refusal> {
    let Some(file) = &network.ca_file else { return Ok(None) };
    let problem =
        |error: String| Refusal::new(file.problem(format_args!("{}: {error}", file.path.display())).to_string());
    let pem = fs::read(&file.path).map_err(|error| problem(error.to_string()))?;
    Certificate::from_pem(&pem).map(Some).map_err(|error| problem(error.to_string()))
}

/// Sends `event` to all recipients. It has arrived if the server accepts it for one of them; the log names the others.
pub(super) async fn send(
    target: &Target,
    email: &Email,
    authority: Option<&Certificate>,
    event: &Event,
) -> Result<(), Refusal> {
    let server = target.mail_server(email)?;
    let password = target.password(email)?;
    let message = message(email, event).map_err(|error| Refusal {
        is_of_message: true,
        ..Refusal::new(format!("the message cannot be written: {error}"))
    })?;
    let transaction = Transaction { server: &server, email, password: password.as_ref(), authority };
    let sent = tokio::time::timeout(TIMEOUT, transaction.run(&message.formatted())).await;
    let (mut connection, refused) = sent.map_err(|_| {
        Refusal::new(format!("{server} did not complete the transmission within {} s", TIMEOUT.as_secs()))
    })??;
    let _ = tokio::time::timeout(QUIT_TIMEOUT, connection.quit()).await;
    for reason in refused {
        warn!(
            target = target.name,
            event = event.id,
            "notify target {}: {reason}; the other recipients have it",
            target.name
        );
    }
    Ok(())
}

/// One message on its way to a server.
struct Transaction<'a> {
    server: &'a MailServer,
    email: &'a Email,
    password: Option<&'a SecretString>,
    authority: Option<&'a Certificate>,
}

impl Transaction<'_> {
    /// Sends the message. Returns the connection, and why recipients were refused while others were accepted.
    async fn run(&self, message: &[u8]) -> Result<(AsyncSmtpConnection, Vec<String>), Refusal> {
        let server = self.server;
        let host = server.host.to_string();
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let failed = |what: &'static str| move |error: Error| self.refusal(what, &error);
        let hello = ClientId::default();
        let tls = || {
            let mut tls = TlsParameters::builder(name.to_owned());
            if let Some(authority) = self.authority {
                tls = tls.add_root_certificate(authority.clone());
            }
            tls.build_rustls().map_err(failed("TLS could not be set up"))
        };
        let implicit = if server.encryption == Encryption::Tls { Some(tls()?) } else { None };
        let mut connection = AsyncSmtpConnection::connect_tokio1((name, server.port), None, &hello, implicit, None)
            .await
            .map_err(failed("could not connect"))?;
        if server.encryption == Encryption::StartTls {
            if !connection.can_starttls() {
                return Err(Refusal::new(format!("{server} does not offer STARTTLS; nothing is sent unencrypted")));
            }
            connection.starttls(tls()?, &hello).await.map_err(failed("STARTTLS failed"))?;
        }
        if let (Some(login), Some(password)) = (&self.email.login, self.password) {
            let credentials = Credentials::new(login.username.clone(), password.expose_secret().to_owned());
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            connection.auth(&mechanisms, &credentials).await.map_err(failed("the login was refused"))?;
        }
        let sender = self.email.from.email.clone();
        connection.command(Mail::new(Some(sender), Vec::new())).await.map_err(failed("the sender was refused"))?;
        let mut refused = Vec::new();
        for recipient in &self.email.to {
            let address = &recipient.email;
            match connection.command(Rcpt::new(address.clone(), Vec::new())).await {
                Ok(_) => {}
                Err(error) if error.status().is_some() => {
                    refused.push(self.refusal(&format!("the recipient {address} was refused"), &error));
                }
                Err(error) => return Err(failed("the connection failed")(error)),
            }
        }
        if refused.len() == self.email.to.len() {
            // A temporary refusal of one may end, so it decides how the message is repeated.
            let all = refused.iter().map(|refusal| refusal.message.clone()).collect::<Vec<_>>().join("; ");
            let is_of_message = refused.iter().all(|refusal| refusal.is_of_message);
            return Err(Refusal { is_of_message, ..Refusal::new(all) });
        }
        connection.command(Data).await.map_err(failed("the message was refused"))?;
        connection.message(message).await.map_err(failed("the message was refused"))?;
        Ok((connection, refused.into_iter().map(|refusal| refusal.message).collect()))
    }

    /// The server's refusal, or why there is no reply.
    fn refusal(&self, what: &str, error: &Error) -> Refusal {
        let code = error.status().map(u16::from);
        let text = error.to_string();
        let words: Vec<_> =
            text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
        let mut line = words.join(" ");
        if let Some(password) = self.password {
            line = line.replace(password.expose_secret(), "…");
        }
        let line: String = line.chars().take(MAX_REASON_BYTES).collect();
        Refusal {
            // As 400 and not 401 in HTTP: another message may be accepted. 530 to 538 are about the login.
            is_of_message: code.is_some_and(|code| code >= 500 && !matches!(code, 530 | 534 | 535 | 538)),
            ..Refusal::new(format!("{}: {what}: {line}", self.server))
        }
    }
}

/// The message. Its id is the same each time the event is sent.
fn message(email: &Email, event: &Event) -> Result<Message, lettre::error::Error> {
    let notice = event.notice();
    let title: String = notice.title.chars().take(TITLE).collect();
    let mark = if notice.mood == Mood::Bad { "ALARM: " } else { "" };
    let to: Mailboxes = email.to.iter().cloned().collect();
    let mut message = Message::builder()
        .message_id(Some(format!("<{}@{}>", event.id, email.from.email.domain())))
        .date(date(event.timestamp))
        .from(email.from.clone())
        .mailbox(lettre::message::header::To::from(to))
        .subject(format!("[{}] {mark}{title}", event.instance))
        .header(ContentType::TEXT_PLAIN)
        .body(body(event))?;
    // Programs that answer mails, such as out-of-office notes, leave these alone.
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    message.headers_mut().insert_raw(HeaderValue::new(automatic, "auto-generated".to_owned()));
    Ok(message)
}

fn date(at: Timestamp) -> std::time::SystemTime {
    at.into()
}

fn body(event: &Event) -> String {
    let notice = event.notice();
    let facts = notice.facts.iter().map(|(name, value)| format!("{name}: {value}"));
    let parts = [
        Some(notice.title.clone()),
        notice.text.clone(),
        Some(facts.collect::<Vec<_>>().join("\n")).filter(|facts| !facts.is_empty()),
        notice.advice.as_ref().map(|advice| format!("What to do: {advice}")),
        event.page.as_ref().map(|page| format!("Status page: {page}")),
        Some(format!("-- \nmoesync, instance {}, event {}", event.instance, event.id)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n") + "\n"
}
