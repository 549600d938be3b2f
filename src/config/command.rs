//! Commands that print a secret: `secret_key_command` and the like.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt as _,
    process::{ChildStderr, Command, ExitStatus, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a command may take.
pub(super) const LONGEST: Duration = Duration::from_secs(10);

/// How much of standard error an error shows, in characters.
const SHOWN: usize = 300;

/// Runs `program` without a shell and returns what it writes to standard output, of which `most` bytes are read. It
/// blocks for up to `longest`; then the program is killed, with all processes that it has started.
///
/// # Errors
/// If it cannot be run, takes longer, or fails; with its exit status and the end of its standard error, in which its
/// output and its arguments are left out.
pub(super) fn output(program: &str, arguments: &[&str], most: u64, longest: Duration) -> Result<Vec<u8>, String> {
    let of = |what: String| format!("the command {program:?} {what}");
    let failed = |error: io::Error| of(format!("could not be run: {error}"));
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (ended, is_ended) = channel::<()>();
    let kill_when_late = move || {
        let is_late = is_ended.recv_timeout(longest) == Err(RecvTimeoutError::Timeout);
        if let (true, Some(group)) = (is_late, group) {
            // It may have ended just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
        is_late
    };
    let name = |name: &str| thread::Builder::new().name(name.to_owned());
    let finished: io::Result<(Vec<u8>, Vec<u8>, ExitStatus, bool)> = thread::scope(|scope| {
        let watch = name("secret deadline").spawn_scoped(scope, kill_when_late)?;
        let errors = name("secret stderr").spawn_scoped(scope, move || last_of(stderr))?;
        let mut bytes = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(most).read_to_end(&mut bytes)?;
        }
        let status = child.wait()?;
        let errors = errors.join().unwrap_or_default();
        drop(ended);
        Ok((bytes, errors, status, watch.join().unwrap_or_default()))
    });
    let (bytes, errors, status, was_late) = finished.map_err(failed)?;
    let errors = shown(&errors, &bytes, arguments);
    match status.success() {
        _ if was_late => Err(of(format!("did not end within {} s and was killed{errors}", longest.as_secs()))),
        true => Ok(bytes),
        // It may have failed because no more is read.
        false if bytes.len() as u64 >= most => Ok(bytes),
        false => Err(of(format!("failed: {status}{errors}"))),
    }
}

/// The end of what is written to standard error, which is read to its end so that the program does not wait.
fn last_of(stderr: Option<ChildStderr>) -> Vec<u8> {
    let mut last = Vec::new();
    let mut piece = [0; 4096];
    let Some(mut stderr) = stderr else { return last };
    while let Ok(read @ 1..) = stderr.read(&mut piece) {
        last.extend_from_slice(piece.get(..read).unwrap_or_default());
        last.drain(..last.len().saturating_sub(4 * SHOWN));
    }
    last
}

/// Standard error as a part of an error, on one line.
fn shown(errors: &[u8], output: &[u8], arguments: &[&str]) -> String {
    let output = String::from_utf8_lossy(output);
    let mut text = String::from_utf8_lossy(errors).into_owned();
    // Either may be a secret or contain one.
    for secret in output.lines().map(str::trim).chain(arguments.iter().copied()).filter(|text| text.len() >= 4) {
        text = text.replace(secret, "…");
    }
    let words: Vec<_> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    let skipped = line.chars().count().saturating_sub(SHOWN);
    match line.chars().skip(skipped).collect::<String>() {
        nothing if nothing.is_empty() => String::new(),
        text if skipped > 0 => format!("; its standard error ends with: …{text}"),
        text => format!("; its standard error: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_late_is_killed_with_the_processes_that_it_started() {
        let soon = Duration::from_millis(50);
        // Would wait for the second process if that kept the pipes.
        let message = output("sh", &["-c", "echo waiting >&2; sleep 3600 & sleep 3600"], 100, soon).unwrap_err();
        assert!(message.contains("did not end within 0 s and was killed"), "{message}");
    }
}
