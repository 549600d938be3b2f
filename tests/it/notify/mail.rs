//! E-mail, to a real SMTP server.

use std::fs;

use moesync::{config, notify::NotifyClient};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{NOW, hours, pass};
use crate::support::{Bench, MailServer, Series};

const PASSWORD: &str = "canary-mail-password";

/// The tables of an instance and of an e-mail target at `url`.
fn tables(url: &str, more: &str) -> String {
    format!(
        "\n[instance]\nname = \"production\"\npage_url = \"https://moesync.example.com\"\n\n\
         [[notify]]\nname = \"mail\"\nkind = \"email\"\nurl = \"{url}\"\nfrom = \"moesync <moesync@acme.example>\"\n\
         to = [\"ops@acme.example\", \"Data <data@acme.example>\"]\n{more}\n"
    )
}

/// A bench at a chosen time, for the library, that sends e-mail to `server`, whose certificate it trusts.
async fn with_mail(server: &MailServer, url: &str, more: &str) -> Bench {
    configured(Bench::at(NOW, &[Series::campaign("Report test", 2)]).await, server, url, more)
}

/// The same at the machine's present time, for the binary.
async fn with_mail_now(server: &MailServer, url: &str, more: &str) -> Bench {
    configured(Bench::new(&[Series::campaign("Report test", 2)]).await, server, url, more)
}

fn configured(bench: Bench, server: &MailServer, url: &str, more: &str) -> Bench {
    let network = format!("\n[network]\nca_file = \"{}\"\n", server.certificate.display());
    bench.write_config(&(bench.config() + &network + &tables(&format!("{url}:{}", server.port), more)));
    bench
}

/// A message in parts: its lines of headers, and its body without quoted-printable's soft line breaks.
fn parts(message: &Value) -> (String, String) {
    let text = message["message"].as_str().unwrap().replace("\r\n", "\n");
    let (head, body) = text.split_once("\n\n").unwrap();
    (head.replace("\n ", " "), body.replace("=\n", "").replace("=3D", "="))
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("{name} is missing in {head}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_is_mailed_by_starttls_and_by_tls_with_a_login() {
    let folder = tempfile::tempdir().unwrap();
    let login = format!("username = \"moesync\"\npassword = \"{PASSWORD}\"");
    for (scheme, tls) in [("smtp", "starttls"), ("smtps", "implicit")] {
        let options = ["--tls", tls, "--login", &format!("moesync:{PASSWORD}")];
        let server = MailServer::start(folder.path(), &options).await;
        let bench = with_mail(&server, &format!("{scheme}://localhost"), &login).await;
        bench.fault("unauthorized");
        pass(&bench).await;
        let [message] = server.messages().try_into().unwrap();
        assert_eq!((&message["encrypted"], &message["user"]), (&true.into(), &"moesync".into()));
        assert_eq!(message["from"], "moesync@acme.example");
        assert_eq!(message["to"], serde_json::json!(["ops@acme.example", "data@acme.example"]));
        let (head, body) = parts(&message);
        let subject = "[production] ALARM: workspace acme: MoEngage refuses the credentials";
        assert_eq!(header(&head, "Subject"), subject);
        assert_eq!(header(&head, "To"), "ops@acme.example, Data <data@acme.example>");
        assert_eq!(header(&head, "Auto-Submitted"), "auto-generated");
        let id = header(&head, "Message-ID");
        assert!(id.starts_with("<evt_") && id.ends_with("@acme.example>"), "{id}");
        for part in ["Since: 2026-11-21 12:00 UTC", "What to do: Check `app_id`", "https://moesync.example.com/"] {
            assert!(body.contains(part), "{body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_encryption_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let server = MailServer::start(folder.path(), &["--tls", "none"]).await;
    let login = format!("username = \"moesync\"\npassword = \"{PASSWORD}\"");
    let bench = with_mail_now(&server, "smtp://localhost", &login).await;
    let ran = bench.run(&["check", "--online"]).await.expect(1);
    assert!(ran.stdout.contains("does not offer STARTTLS; nothing is sent unencrypted"), "{}", ran.stdout);
    // A server with a certificate that is not trusted.
    let server = MailServer::start(folder.path(), &["--tls", "starttls"]).await;
    let bench = Bench::new(&[Series::campaign("Report test", 1)]).await;
    bench.write_config(&(bench.config() + &tables(&format!("smtp://localhost:{}", server.port), &login)));
    let ran = bench.run(&["check", "--online"]).await.expect(1);
    assert!(ran.stdout.contains("STARTTLS failed"), "{}", ran.stdout);
    assert_eq!(server.messages(), [Value::Null; 0]);
    // On this machine it may be switched off.
    let server = MailServer::start(folder.path(), &["--tls", "none"]).await;
    let bench = with_mail_now(&server, "smtp://127.0.0.1", "starttls = false").await;
    bench.run(&["check", "--online"]).await.expect(0);
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_recipient_or_login_is_named_and_the_password_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |rule: &'static str| ["--tls", "starttls", "--refuse", rule];
    let server = MailServer::start(folder.path(), &refuse("ops@acme.example=550 5.1.1 no such user")).await;
    let bench = with_mail_now(&server, "smtp://localhost", "").await;
    let ran = bench.run(&["check", "--online"]).await.expect(0);
    let [message] = server.messages().try_into().unwrap();
    assert_eq!(message["to"], serde_json::json!(["data@acme.example"]));
    assert!(
        ran.stderr.contains("the recipient ops@acme.example was refused: permanent error (550): 5.1.1 no such user"),
        "{}",
        ran.stderr
    );

    let options = ["--tls", "starttls", "--login", &format!("moesync:not-{PASSWORD}")];
    let server = MailServer::start(folder.path(), &options).await;
    let login = format!("username = \"moesync\"\npassword = \"{PASSWORD}\"");
    let bench = with_mail_now(&server, "smtp://localhost", &login).await;
    let ran = bench.run(&["check", "--online"]).await.expect(1);
    assert!(ran.stdout.contains("the login was refused: permanent error (535)"), "{}", ran.stdout);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(PASSWORD), "{} {}", ran.stdout, ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_refusal_is_repeated_with_the_same_message_id() {
    let folder = tempfile::tempdir().unwrap();
    let server = MailServer::start(folder.path(), &["--tls", "starttls", "--data", "451 4.3.0 try later"]).await;
    let bench = with_mail(&server, "smtp://localhost", "").await;
    bench.fault("unauthorized");
    pass(&bench).await;
    let [refused] = server.messages().try_into().unwrap();
    assert_eq!(refused["reply"], "451 4.3.0 try later");
    // The same server without the fault.
    let server = MailServer::start(folder.path(), &["--tls", "starttls"]).await;
    let config = fs::read_to_string(bench.path("moesync.toml")).unwrap();
    let (before, rest) = config.split_once("smtp://localhost:").unwrap();
    let (_, after) = rest.split_once('"').unwrap();
    bench.write_config(&format!("{before}smtp://localhost:{}\"{after}", server.port));
    bench.clock.advance(hours(1));
    pass(&bench).await;
    let [accepted] = server.messages().try_into().unwrap();
    let id = |message: &Value| header(&parts(message).0, "Message-ID").to_owned();
    assert_eq!((&accepted["reply"], id(&accepted)), (&"250 OK".into(), id(&refused)));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_replies_is_given_up() {
    // Never accepted: the clock advances while nothing else can happen.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("moesync.toml");
    let url = format!("smtp://{}", silent.local_addr().unwrap());
    let workspace = "[[workspaces]]\nname = \"acme\"\napp_id = \"A\"\ndata_center = \"01\"\ntimezone = \"UTC\"\nsecret_key = \"k\"\n";
    let rest = "[[destinations]]\nname = \"disk\"\nurl = \"file:///nowhere\"\n\
                [[reports]]\nsource = \"daily_dump\"\nschedule = { every = \"day\", at = \"06:00\" }\n";
    fs::write(&file, format!("{workspace}{rest}{}", tables(&url, ""))).unwrap();
    let config = config::load(&file, std::iter::empty()).unwrap();
    let client = NotifyClient::new(&config.network).unwrap();
    let now = NOW.parse().unwrap();
    let event = moesync::dispatch::event(moesync::event::Content::test(), now, &config.instance);
    let refusal = client.send(&config.notify[0], &event, now).await.unwrap_err();
    assert_eq!(refusal.to_string(), format!("{url} did not complete the transmission within 20 s"));
}
