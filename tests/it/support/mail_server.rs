//! A real SMTP server: aiosmtpd, as a process.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// Runs until dropped.
pub struct MailServer {
    pub port: u16,
    /// The certificate to trust.
    pub certificate: PathBuf,
    messages: Arc<Mutex<Vec<Value>>>,
    _process: Child,
}

impl MailServer {
    /// Starts one with a certificate for `localhost` in `folder`, and with these options of `mail_server.py`.
    pub async fn start(folder: &Path, options: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/mail-server/bin/python");
        assert!(python.exists(), "{} is missing; `make mail-server` installs it", python.display());
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("mail.crt"), folder.join("mail.key"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut process = Command::new(python)
            .arg(root.join("tests/it/support/mail_server.py"))
            .arg("--certificate")
            .arg(&certificate)
            .arg("--key")
            .arg(key)
            .args(options)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().expect("the mail server ended").parse().unwrap();
        let messages: Arc<Mutex<Vec<Value>>> = Arc::default();
        let received = Arc::clone(&messages);
        super::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                received.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { port, certificate, messages, _process: process }
    }

    /// All messages, with the reply to each.
    pub fn messages(&self) -> Vec<Value> {
        self.messages.lock().unwrap().clone()
    }
}
