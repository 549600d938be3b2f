//! `moesync init` on a real terminal, against the real emulator.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    task::JoinHandle,
};

use crate::support::{PATIENCE, Ran, spawn, wait_until};

const MOESYNC: &str = env!("CARGO_BIN_EXE_moesync");

/// The binary in `folder`, with nothing of this process's environment but the path.
fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("TZ", "Europe/Berlin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(folder: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut child = command(MOESYNC, folder).args(arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// `moesync emulate`, and what it prints about its account.
struct Emulator {
    _process: Child,
    url: String,
    app_id: String,
    key: String,
}

impl Emulator {
    async fn start(folder: &Path) -> Self {
        let arguments = ["emulate", "--listen", "127.0.0.1:0", "--log-format", "json"];
        let mut process = command(MOESYNC, folder).args(arguments).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut text = String::new();
        while !text.contains("moesync init") {
            text += &lines.next_line().await.unwrap().expect("the emulator says how to use it");
            text += "\n";
        }
        let after = |what: &str| {
            let rest = text.split_once(what).unwrap_or_else(|| panic!("{what}: {text}")).1;
            rest.split_whitespace().next().unwrap().trim_end_matches(';').to_owned()
        };
        assert!(text.contains("Daily campaigns (day 09:30 UTC)"), "{text}");
        Emulator { _process: process, url: after("listens on"), app_id: after("app id"), key: after("secret key") }
    }
}

/// A command on a terminal.
struct Terminal {
    process: Child,
    input: ChildStdin,
    shown: Arc<Mutex<String>>,
    /// Ends when the terminal is closed.
    reading: JoinHandle<()>,
    /// How much of it was read.
    read: usize,
}

impl Terminal {
    fn start(folder: &Path, line: &str) -> Self {
        let mut command = command("script", folder);
        command.args(["--quiet", "--return", "--flush", "--echo", "always", "--command", line, "/dev/null"]);
        let mut process = command.spawn().unwrap();
        let (input, mut output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&shown);
        let reading = spawn(async move {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece).await {
                collected.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        Terminal { process, input, shown, reading, read: 0 }
    }

    /// Waits for a question and enters an answer.
    async fn answer(&mut self, question: &str, answer: &str) {
        self.wait_for(question).await;
        self.input.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
    }

    /// Waits for text after what was read before.
    async fn wait_for(&mut self, text: &str) {
        let found = async || self.shown.lock().unwrap()[self.read..].contains(text);
        assert!(wait_until(found).await, "no {text:?} in {}", self.shown.lock().unwrap());
        let shown = self.shown.lock().unwrap();
        self.read += shown[self.read..].find(text).unwrap() + text.len();
    }

    /// Everything that was shown, and the exit code.
    async fn end(mut self) -> (String, Option<i32>) {
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await.unwrap().unwrap();
        self.reading.await.unwrap();
        let shown = self.shown.lock().unwrap().clone();
        (shown, status.code())
    }
}

fn names(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_answers_questions_and_has_stored_reports() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(folder.path()).await;
    let mut terminal = Terminal::start(folder.path(), &format!("{MOESYNC} init --base-url {}", emulator.url));
    terminal.answer("of your choice [main]: ", "tables").await;
    terminal.answer("choose another name", "").await;
    terminal.answer("APP ID", "with space").await;
    terminal.wait_for("without spaces").await;
    terminal.answer("APP ID", &emulator.app_id).await;
    terminal.answer("[Europe/Berlin]: ", "Utopia").await;
    terminal.answer("no zone is called \"Utopia\"", "UTC").await;
    terminal.answer("[./archive]: ", "").await;
    terminal.answer("(not shown): ", "not-the-key").await;
    terminal.answer("as in the dashboard: ", "Daily campaign").await;
    terminal.answer("[day 09:30]: ", "daily").await;
    terminal.answer("[day 09:30]: ", "").await;
    terminal.answer("name/key/nothing [name]: ", "key").await;
    terminal.answer("(not shown): ", &emulator.key).await;
    terminal.answer("name/key/nothing [name]: ", "").await;
    terminal.answer("as in the dashboard: ", "Daily campaigns").await;
    terminal.answer("[day 09:30]: ", "").await;
    terminal.wait_for("dates available").await;
    terminal.answer("another report, or nothing: ", "Weekly summary").await;
    terminal.answer("[day 09:30]: ", "week monday 07:00").await;
    terminal.answer("another report, or nothing: ", "").await;
    let (shown, code) = terminal.end().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(&emulator.key) && !shown.contains("not-the-key"), "a key is shown: {shown}");
    assert!(shown.contains("moesync sync") && shown.contains("wrote ./moesync.toml"), "{shown}");

    assert_eq!(names(&folder), ["moesync.toml", "secret-key"]);
    assert_eq!(fs::read_to_string(folder.path().join("secret-key")).unwrap().trim_end(), emulator.key);
    let mode = fs::metadata(folder.path().join("secret-key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    run(folder.path(), &["sync"], "").await.expect(0);
    let stored = fs::read_dir(folder.path().join("archive/main/Daily_campaigns")).unwrap().count();
    assert!((6..=7).contains(&stored), "{stored} dates are stored");
    assert!(folder.path().join("archive/main/Weekly_summary").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_and_the_end_of_the_input_write_nothing_and_leave_the_terminal_as_it_was() {
    for end in ["\x03", "\x04"] {
        let folder = tempfile::tempdir().unwrap();
        let line = format!(
            "trap : INT; {MOESYNC} init --workspace a --app-id B --data-center 01 --destination d; echo code $?; stty -a | grep -qw -- -echo && echo hidden; echo end"
        );
        let mut terminal = Terminal::start(folder.path(), &line);
        terminal.answer("[Europe/Berlin]: ", "").await;
        terminal.wait_for("(not shown): ").await;
        // It is not shown once the question is.
        terminal.input.write_all(end.as_bytes()).await.unwrap();
        let (shown, _) = terminal.end().await;
        assert!(shown.contains("nothing was written") && shown.contains("code 1"), "{shown}");
        assert!(!shown.contains("hidden") && shown.contains("end"), "the terminal stays silent: {shown}");
        assert_eq!(names(&folder), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_every_answer_is_an_option_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let emulator = Emulator::start(folder.path()).await;
    let (url, app_id) = (emulator.url.as_str(), emulator.app_id.as_str());
    let with = |name: &'static str, more: &[&'static str]| {
        let all = ["init", "--non-interactive", "--base-url", url, "--app-id", app_id, "--timezone", "UTC"];
        [&all[..], &["--report", name, "--schedule", "day 09:30", "--key-file", "-"], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let init = async |arguments: Vec<String>, key: &str| {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        run(folder.path(), &arguments, key).await
    };
    let key = format!("{}\n", emulator.key);
    let refused = init(with("Unknown", &[]), &key).await.expect(1);
    // Seven, but six while today's is generated and not due.
    let is_named =
        [6, 7].iter().any(|dates| refused.stderr.contains(&format!("none of the last {dates} dates is available")));
    assert!(is_named, "{}", refused.stderr);
    let refused = init(with("Daily campaigns", &[]), "wrong").await.expect(1);
    assert!(refused.stderr.contains("401"), "{}", refused.stderr);
    let refused = init(with("Daily campaigns", &["--destination", "ftp://x"]), &key).await.expect(2);
    assert!(refused.stderr.contains("destinations[0].url: expected file:///PATH"), "{}", refused.stderr);
    let refused = init(with("Daily campaigns", &["--config", "none/moesync.toml"]), &key).await.expect(1);
    assert!(refused.stderr.contains("could not write to the folder none"), "{}", refused.stderr);
    let refused = run(folder.path(), &["init"], "").await.expect(2);
    assert!(refused.stderr.contains("--non-interactive"), "{}", refused.stderr);
    let refused = run(folder.path(), &["init", "--non-interactive", "--base-url", url], "").await.expect(2);
    assert!(refused.stderr.contains("is missing"), "{}", refused.stderr);
    assert_eq!(names(&folder), [""; 0]);

    // As `run` would.
    let file = folder.path().join("key");
    fs::write(&file, &key).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let arguments =
        with("Daily campaigns", &[]).into_iter().map(|word| if word == "-" { "key".to_owned() } else { word });
    let refused = init(arguments.collect(), "").await.expect(2);
    assert!(refused.stderr.contains("every user of this machine may read"), "{}", refused.stderr);
    fs::remove_file(&file).unwrap();
    assert_eq!(names(&folder), [""; 0]);

    init(with("Daily campaigns", &[]), &key).await.expect(0);
    assert_eq!(names(&folder), ["moesync.toml", "secret-key"]);
    let before = fs::read_to_string(folder.path().join("moesync.toml")).unwrap();
    let refused = init(with("Weekly summary", &[]), &key).await.expect(2);
    assert!(refused.stderr.contains("overwrites nothing"), "{}", refused.stderr);
    let refused = init(with("Weekly summary", &["--config", "other.toml"]), &key).await.expect(2);
    assert!(refused.stderr.contains("secret-key exists"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(folder.path().join("moesync.toml")).unwrap(), before);
    run(folder.path(), &["check", "--online"], "").await.expect(0);

    fs::create_dir(folder.path().join("it's")).unwrap();
    let ran = init(with("Daily campaigns", &["--config", "it's/moesync.toml"]), &key).await.expect(0);
    assert!(ran.stdout.contains(r"moesync --config 'it'\''s/moesync.toml' plan"), "{}", ran.stdout);
}
