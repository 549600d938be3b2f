//! Output on a terminal: lines that fit, and what Ctrl-C does.

use std::time::Duration;

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::support::{Bench, Ran, Series, wait_until};

/// Runs a command in a terminal of so many columns; its output is all that the terminal got. Presses Ctrl-C when the text in
/// `CTRL_C_AT` appears.
const TERMINAL: &str = "
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 24 if int(sys.argv[1]) else 0, int(sys.argv[1]), 0, 0))
    os.execvp(sys.argv[2], sys.argv[2:])
ctrl_c_at = os.environb.get(b'CTRL_C_AT')
seen = b''
while True:
    try:
        read = os.read(terminal, 65536)
    except OSError:
        break
    if not read:
        break
    sys.stdout.buffer.write(read)
    seen += read
    if ctrl_c_at and ctrl_c_at in seen:
        os.write(terminal, b'\\x03')
        ctrl_c_at = None
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

async fn at_terminal(bench: &Bench, columns: u16, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = bench.command_under("python3", &["-c", TERMINAL, &columns.to_string()], arguments);
    command.env("TERM", "xterm").envs(environment.iter().copied());
    bench.finish(command).await
}

/// The lines that stay on the terminal, without colours. Blanks at their ends count: they wrap too.
fn lines(ran: &Ran) -> Vec<String> {
    console::strip_ansi_codes(&ran.stdout).lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
}

#[track_caller]
fn assert_fits(ran: &Ran, most: usize) {
    let lines = lines(ran);
    let too_long: Vec<_> = lines.iter().filter(|line| console::measure_text_width(line) > 80).collect();
    assert!(too_long.is_empty() && lines.len() <= most, "{} lines, {too_long:#?}: {}", lines.len(), ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_reports_are_a_line_each_that_fits_a_terminal() {
    let names: Vec<_> = (0..50).map(|number| format!("A report with a name that is long {number}")).collect();
    let series: Vec<_> = names.iter().map(|name| Series::campaign(name, 2)).collect();
    let bench = Bench::new(&series).await;
    for command in [&["plan"][..], &["status"]] {
        assert_fits(&at_terminal(&bench, 80, &[], command).await.expect(0), 54);
    }
    bench.sync(0).await;
    for command in [&["plan"][..], &["status"]] {
        assert_fits(&at_terminal(&bench, 80, &[], command).await.expect(0), 54);
    }
    // The configuration, the ledger and the destination have lines too.
    assert_fits(&at_terminal(&bench, 80, &[], &["check", "--online"]).await.expect(0), 58);
    let all = at_terminal(&bench, 80, &[], &["status", "--all"]).await.expect(0);
    assert_fits(&all, 160);
    assert!(lines(&all).iter().any(|line| line.ends_with('…')), "{}", all.stdout);
    let key = bench.series[0].key(bench.newest);
    let wide = at_terminal(&bench, 80, &[], &["status", "--all", "--wide"]).await.expect(0);
    assert!(wide.stdout.contains(&key), "{}", wide.stdout);
    assert!(bench.run(&["status", "--all"]).await.expect(0).stdout.contains(&key), "cut in a pipe");
    let unknown = at_terminal(&bench, 0, &[], &["status", "--all"]).await.expect(0);
    assert!(unknown.stdout.contains(&key), "{}", unknown.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_of_tables_are_a_line_each_that_fits_a_terminal() {
    let bench = Bench::new(&[Series::campaign("A report with a name that is long", 1)]).await;
    let with_tables =
        bench.config().replace("\ndestination = \"disk\"\n", "\ndestination = \"disk\"\ntables = \"parquet\"\n");
    bench.write_config(&with_tables);
    bench.sync(0).await;
    let columns = at_terminal(&bench, 80, &[], &["tables", "--columns"]).await.expect(0);
    assert_fits(&columns, 400);
    assert!(lines(&columns).len() > 50, "{}", columns.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_colours_nothing_is_escaped() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    for environment in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        for command in [&["status", "--all"][..], &["plan"], &["check"]] {
            let ran = at_terminal(&bench, 80, &[environment], command).await.expect(0);
            assert!(!ran.stdout.contains('\u{1b}'), "{environment:?} {command:?}: {:?}", ran.stdout);
        }
    }
    let coloured = at_terminal(&bench, 80, &[], &["status", "--all"]).await.expect(0);
    assert!(coloured.stdout.contains('\u{1b}'), "{:?}", coloured.stdout);
    let dumb = at_terminal(&bench, 80, &[("TERM", "dumb")], &["sync"]).await.expect(0);
    assert!(!dumb.stdout.contains('\u{1b}'), "{:?}", dumb.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_fits_a_terminal() {
    let bench = Bench::new(&[]).await;
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL, "80", env!("CARGO_BIN_EXE_moesync"), "demo"]);
    command.current_dir(bench.folder.path()).env("TERM", "dumb").kill_on_drop(true);
    assert_fits(&bench.finish(command).await.expect(0), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_command_says_so_and_a_second_signal_ends_it() {
    let bench = Bench::new(&[Series::campaign("Report test", 2)]).await;
    bench.fault("slow=100,times=2");
    let mut sync = bench.command(&["sync"]).spawn().unwrap();
    assert!(wait_until(async || bench.requests() > 0).await);
    let pid = sync.id().unwrap().to_string();
    let interrupt = async || assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    interrupt().await;
    let mut said = BufReader::new(sync.stderr.take().unwrap()).lines();
    loop {
        let line = said.next_line().await.unwrap().expect("it ended without a word");
        if line.starts_with("stopping: ") {
            assert!(line.contains("Ctrl-C again"), "{line}");
            break;
        }
    }
    interrupt().await;
    let ended = tokio::time::timeout(Duration::from_secs(60), sync.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(130));
    bench.sync(0).await;
    bench.oracle().await;
}

/// What a terminal of so many columns shows after this output. The cursor moves by line feeds, returns, full lines, and the
/// sequences for up and down; those that erase a line, or all below, are heeded too, and those for colours change nothing.
fn screen(columns: usize, output: &str) -> String {
    let (mut rows, mut row, mut column) = (vec![Vec::new()], 0_usize, 0_usize);
    let mut rest = output.chars();
    while let Some(c) = rest.next() {
        match c {
            '\n' => row += 1,
            '\r' => column = 0,
            '\u{1b}' => {
                let sequence: String = rest.clone().take_while(|c| !c.is_ascii_alphabetic()).collect();
                let end = rest.nth(sequence.len());
                let parameters = sequence.trim_start_matches('[');
                let by = parameters.parse().unwrap_or(1);
                match end {
                    Some('A') => row = row.saturating_sub(by),
                    Some('B') => row += by,
                    Some('K') if parameters == "2" => rows[row].clear(),
                    Some('K') => rows[row].truncate(column),
                    Some('J') => {
                        rows.truncate(row + 1);
                        rows[row].truncate(column);
                    }
                    _ => {}
                }
            }
            _ => {
                if column == columns {
                    (row, column) = (row + 1, 0);
                }
                rows.resize(rows.len().max(row + 1), Vec::new());
                let line: &mut Vec<char> = &mut rows[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = c;
                column += 1;
            }
        }
        rows.resize(rows.len().max(row + 1), Vec::new());
    }
    rows.into_iter().map(|line| String::from_iter(line) + "\n").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bars_leave_the_results_of_a_stopped_sync_whole() {
    let bench = Bench::new(&[Series::campaign("Report test", 7)]).await;
    bench.fault("slow=2000");
    let stopped = at_terminal(&bench, 80, &[("CTRL_C_AT", "report-test")], &["sync"]).await.expect(1);
    assert!(stopped.stdout.contains("0 of 7"), "{:?}", stopped.stdout);
    let shown = screen(80, &stopped.stdout);
    let (above, results) = shown.split_once("REPORT ").unwrap();
    assert!(above.contains("stopping: "), "{shown}");
    let dates = results.lines().filter(|line| line.starts_with("report-test  2026-")).count();
    assert!(dates == 7 && results.contains(" pending, ") && !results.contains(" of 7"), "{shown}");
}
