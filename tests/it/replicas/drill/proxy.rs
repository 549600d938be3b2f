//! A TCP proxy in front of PostgreSQL that cuts connections at a COMMIT.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The server never receives the COMMIT: the transaction is rolled back.
    Before,
    /// The server has committed, and the client never receives that.
    After,
}

/// Which COMMITs are cut.
#[derive(Debug)]
struct Cutter {
    random: Xoshiro256PlusPlus,
    /// One COMMIT in this many is cut.
    one_in: u32,
    /// Cuts that are left.
    left: usize,
    before: usize,
    after: usize,
}

impl Cutter {
    fn decide(&mut self) -> Option<Cut> {
        if self.left == 0 || self.random.random_range(0..self.one_in) > 0 {
            return None;
        }
        self.left -= 1;
        if self.random.random_bool(0.5) {
            self.before += 1;
            Some(Cut::Before)
        } else {
            self.after += 1;
            Some(Cut::After)
        }
    }
}

/// A running proxy. It ends when it is dropped; its connections end with the test.
pub struct Proxy {
    pub port: u16,
    cutter: Arc<Mutex<Cutter>>,
    task: AbortHandle,
}

impl Proxy {
    /// A proxy of the server at this local port. It cuts one COMMIT of `one_in`, and `most` in total.
    pub async fn start(server: u16, seed: u64, one_in: u32, most: usize) -> Self {
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let cutter = Arc::new(Mutex::new(Cutter { random, one_in, left: most, before: 0, after: 0 }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(&cutter);
        let task = crate::support::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let cutter = Arc::clone(&shared);
                crate::support::spawn(async move {
                    // While the server is stopped, the client's connection ends immediately.
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                        let _ = carry(client, server, &cutter).await;
                    }
                });
            }
        });
        Self { port, cutter, task: task.abort_handle() }
    }

    /// Cuts no more connections.
    pub fn stop_cutting(&self) {
        self.cutter.lock().unwrap().left = 0;
    }

    /// The number of connections that were cut before and after the server received the COMMIT.
    pub fn cuts(&self) -> (usize, usize) {
        let cutter = self.cutter.lock().unwrap();
        (cutter.before, cutter.after)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries the bytes of a connection in both directions until either side ends it, or it is cut.
async fn carry(client: TcpStream, server: TcpStream, cutter: &Mutex<Cutter>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // The client waits for each response before it sends COMMIT: what the server sends after that is its response.
    let is_muted = AtomicBool::new(false);
    let requests = async {
        let mut from_client = BufReader::new(from_client);
        // The first message has no kind.
        let mut message = Vec::new();
        read_message(&mut from_client, &mut message).await?;
        to_server.write_all(&message).await?;
        loop {
            message.clear();
            message.push(from_client.read_u8().await?);
            read_message(&mut from_client, &mut message).await?;
            match is_commit(&message).then(|| cutter.lock().unwrap().decide()).flatten() {
                Some(Cut::Before) => return Ok(()),
                Some(Cut::After) => is_muted.store(true, Ordering::SeqCst),
                None => {}
            }
            to_server.write_all(&message).await?;
        }
    };
    let responses = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 || is_muted.load(Ordering::SeqCst) {
                return Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    tokio::select! {
        ended = requests => ended,
        ended = responses => ended,
    }
}

/// Appends a message to `message`: its length, which counts itself, and its body.
async fn read_message(from: &mut (impl AsyncRead + Unpin), message: &mut Vec<u8>) -> io::Result<()> {
    let length = from.read_u32().await?;
    message.extend(length.to_be_bytes());
    let body = message.len();
    message.resize(body + (length as usize).saturating_sub(4), 0);
    from.read_exact(&mut message[body..]).await.map(drop)
}

/// Whether a message is COMMIT: as a simple query, or as a statement to prepare, whose name comes first.
fn is_commit(message: &[u8]) -> bool {
    let (kind, body) = (message[0], &message[5..]);
    let mut texts = body.split(|byte| *byte == 0);
    let text = match kind {
        b'Q' => texts.next(),
        b'P' => texts.nth(1),
        _ => None,
    };
    text.is_some_and(|text| text.eq_ignore_ascii_case(b"COMMIT"))
}
