//! A server that answers by script, byte for byte, so that it can have every fault.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::Response;
use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

/// One thing that the server does to a connection. After the last one it closes properly.
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits.
    Pause(Duration),
    /// Keeps the connection open without sending.
    Hang,
    /// Resets the connection.
    Reset,
    /// Closes the connection without TLS close_notify.
    Drop,
    /// Accepts a CONNECT and forwards bytes in both directions.
    Tunnel(SocketAddr),
}

/// A whole answer with its length.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<Step> {
    let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
    let length = if status.starts_with("204") || status.starts_with("304") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let mut bytes = format!("HTTP/1.1 {status}\r\n{headers}{length}Connection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

/// Listens until dropped.
pub struct Server {
    /// The address that it listens on.
    pub address: SocketAddr,
    scheme: &'static str,
    requests: Requests,
    task: AbortHandle,
}

/// The heads of the requests received.
type Requests = Arc<Mutex<Vec<String>>>;

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers each request by the script.
    pub async fn start(script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::bound_to("127.0.0.1:0", script).await
    }

    /// The same at another address.
    pub async fn bound_to(address: &str, script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let script = Arc::new(script);
        Self::serve(address, "http", move |mut stream, requests| {
            let script = Arc::clone(&script);
            async move {
                let Some(head) = read_head(&mut stream).await else { return };
                requests.lock().unwrap().push(head.clone());
                match play(&mut stream, script(&head)).await {
                    End::Close => drop(stream.shutdown().await),
                    End::Reset => stream.set_zero_linger().unwrap(),
                    End::Drop => {}
                }
            }
        })
        .await
    }

    /// The same over TLS.
    pub async fn tls(acceptor: TlsAcceptor, script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let script = Arc::new(script);
        Self::serve("127.0.0.1:0", "https", move |stream, requests| {
            let (script, acceptor) = (Arc::clone(&script), acceptor.clone());
            async move {
                // A client that does not trust the certificate closes the connection.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let Some(head) = read_head(&mut stream).await else { return };
                requests.lock().unwrap().push(head.clone());
                if let End::Close = play(&mut stream, script(&head)).await {
                    drop(stream.shutdown().await);
                }
            }
        })
        .await
    }

    /// Answers any bytes with these.
    pub async fn deaf(sends: Vec<u8>) -> Self {
        Self::serve("127.0.0.1:0", "https", move |mut stream, _| {
            let sends = sends.clone();
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
                play(&mut stream, vec![Step::Send(sends)]).await;
                drop(stream.shutdown().await);
            }
        })
        .await
    }

    /// Answers every request over HTTP/2 with a body that may be shorter than its announced length.
    pub async fn http2(authority: &Authority, length: u64, body: &'static [u8]) -> Self {
        let acceptor = authority.acceptor_for(b"h2");
        Self::serve("127.0.0.1:0", "https", move |stream, requests| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let head = format!("{} {:?} {}", request.method(), request.version(), request.uri().path());
                    requests.lock().unwrap().push(head);
                    let response = Response::builder().header("content-length", length).body(()).unwrap();
                    let mut stream = respond.send_response(response, false).unwrap();
                    stream.send_data(Bytes::from_static(body), true).unwrap();
                }
            }
        })
        .await
    }

    async fn serve<F>(
        address: &str,
        scheme: &'static str,
        handle: impl Fn(TcpStream, Requests) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Requests::default();
        let received = Arc::clone(&requests);
        let task = crate::support::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                crate::support::spawn(handle(stream, Arc::clone(&received)));
            }
        });
        Server { address, scheme, requests, task: task.abort_handle() }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// How a script ends.
enum End {
    Close,
    Reset,
    Drop,
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn play(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), steps: Vec<Step>) -> End {
    for step in steps {
        match step {
            Step::Send(bytes) => {
                // The client may have closed the connection.
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    return End::Drop;
                }
            }
            Step::Pause(pause) => tokio::time::sleep(pause).await,
            Step::Hang => std::future::pending().await,
            Step::Reset => return End::Reset,
            Step::Drop => return End::Drop,
            Step::Tunnel(to) => {
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let mut onward = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(stream, &mut onward).await;
                return End::Drop;
            }
        }
    }
    End::Close
}

/// A certificate authority that no client trusts by default.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a private authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pem = issuer.pem();
        Authority { issuer, pem }
    }

    /// TLS with a good certificate for 127.0.0.1.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_for(b"http/1.1")
    }

    /// TLS with a certificate that was good for 127.0.0.1 until the end of 2020.
    pub fn expired(&self) -> TlsAcceptor {
        let mut params = certificate();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 12, 31);
        self.sign(&params, b"http/1.1")
    }

    fn acceptor_for(&self, protocol: &[u8]) -> TlsAcceptor {
        self.sign(&certificate(), protocol)
    }

    fn sign(&self, params: &CertificateParams, protocol: &[u8]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.into()], key).unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn certificate() -> CertificateParams {
    CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap()
}
