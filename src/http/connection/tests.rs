//! Connections from outside, on a server with routes of its own and little patience.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_server::Server;
use actix_web::body::SizedStream;
use actix_web::rt::time::sleep;
use actix_web::web::{self, Bytes, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use rcgen::CertifiedKey;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::lull::Patience;
use super::refused::Refused;
use super::seats::{Crowd, Seats};
use super::spoken::WRITE_BUFFER_BYTES;
use super::{Answering, Line, Reception, serve};

const LONGEST: Duration = Duration::from_millis(400);
/// More than the kernels of both sides hold.
const HUGE_BYTES: usize = 32 << 20;
/// A body that looks like an answer of the library.
const ODD: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

async fn answer(request: HttpRequest, _body: Payload) -> HttpResponse {
    let answering = Answering::begin(&request).unwrap();
    let answer = match request.path() {
        "/long" => {
            let pieces = futures_util::stream::unfold(0, |piece| async move {
                sleep(LONGEST / 2).await;
                (piece < 6).then(|| (Ok::<_, std::io::Error>(Bytes::from_static(b"x")), piece + 1))
            });
            HttpResponse::Ok().streaming(pieces)
        }
        "/late" => {
            sleep(LONGEST * 3).await;
            HttpResponse::Ok().body("late")
        }
        "/big" => {
            let pieces = futures_util::stream::unfold(0, |piece| async move {
                sleep(LONGEST / 100).await;
                (piece < 10).then(|| (Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 40_000])), piece + 1))
            });
            HttpResponse::Ok().body(SizedStream::new(400_000, Box::pin(pieces)))
        }
        "/huge" => HttpResponse::Ok().body(vec![b'x'; HUGE_BYTES]),
        "/much" => HttpResponse::Ok().body(vec![b'x'; 2 * WRITE_BUFFER_BYTES]),
        "/odd" => HttpResponse::Ok().body(ODD),
        "/empty" => HttpResponse::BadRequest().finish(),
        "/listener" => HttpResponse::Ok().body(Line::of(&request).unwrap().listener().to_string()),
        _ => HttpResponse::Ok().body("soon"),
    };
    answering.follow(answer)
}

fn routes(config: &mut ServiceConfig) {
    config.default_service(web::to(answer));
}

/// What a client reads to the end that sends this and nothing after it, and which statuses were refused to no request.
async fn read(sent: &str) -> (String, Vec<u16>) {
    let (text, refused) = served(None, async |address| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        closed(client.read_to_end(&mut text)).await.unwrap();
        text
    })
    .await;
    (String::from_utf8(text).unwrap(), refused)
}

/// Waits, within a generous bound that tells a connection that nobody closes.
async fn closed<T>(reading: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), reading).await.expect("the connection is closed")
}

/// What comes of a client, and which statuses were refused to no request.
async fn served<T>(tls: Option<Arc<ServerConfig>>, client: impl AsyncFnOnce(SocketAddr) -> T) -> (T, Vec<u16>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let refused = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&refused);
    let reception = Reception {
        seats: Seats::new(Crowd { connections_max: 1, ..Crowd::default() }),
        patience: Patience { lull: LONGEST, gone: LONGEST * 100 },
        user_timeout: Duration::from_secs(900),
        tell: Arc::new(move |refused: &Refused| {
            assert!(refused.is_complete);
            told.lock().unwrap().push(refused.status.as_u16());
        }),
    };
    let (shared, server) = (reception.clone(), Server::build().workers(1).disable_signals());
    let signal = server.graceful_shutdown_signal();
    let service = move || serve(reception.clone(), address, tls.clone(), signal.clone(), routes);
    let server = server.listen("http", listener, service).unwrap().run();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    let outcome = client(address).await;
    handle.stop(true).await;
    running.await.unwrap().unwrap();
    assert!(shared.seats.take(address.ip()).is_ok(), "its place is free");
    let refused = refused.lock().unwrap().clone();
    (outcome, refused)
}

#[actix_web::test]
async fn what_is_unsent_when_a_connection_is_ended_leaves_over_tls_too() {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let server = server.unwrap().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = TlsConnector::from(Arc::new(client.with_root_certificates(roots).with_no_client_auth()));
    let (answer, _) = served(Some(Arc::new(server)), async |address| {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = client.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        stream.write_all(b"GET /huge HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // A pause, until long after the connection was ended.
        sleep(LONGEST * 4).await;
        let mut answer = Vec::new();
        let _ = closed(stream.read_to_end(&mut answer)).await;
        answer
    })
    .await;
    assert!(answer.len() > HUGE_BYTES, "{} bytes", answer.len());
}

#[actix_web::test]
async fn a_later_head_that_does_not_end_ends_the_connection() {
    let (text, refused) = read("GET /soon HTTP/1.1\r\nHost: x\r\n\r\nG").await;
    assert!(text.contains("200 OK") && text.contains("soon") && refused.is_empty(), "{text}");
}

#[actix_web::test]
async fn a_body_that_nobody_reads_and_that_does_not_end_ends_the_connection() {
    let (text, refused) = read("GET /soon HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert!(text.contains("200 OK") && text.contains("soon") && refused.is_empty(), "{text}");
}

#[actix_web::test]
async fn answers_that_take_long_leave_as_a_whole() {
    let (text, _) = read("GET /late HTTP/1.1\r\nHost: x\r\n\r\nG").await;
    assert!(text.contains("late"), "{text}");
    let (text, _) = read("GET /long HTTP/1.1\r\nHost: x\r\n\r\nG").await;
    assert_eq!(text.matches("1\r\nx\r\n").count(), 6, "{text}");
    assert!(text.ends_with("0\r\n\r\n"), "{text}");
}

#[actix_web::test]
async fn an_answer_of_the_library_is_said_in_our_way_and_told() {
    let (text, refused) = read("no request\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n") && text.contains("\r\nX-Request-Id: "), "{text}");
    assert_eq!(refused, [400]);
}

#[actix_web::test]
async fn an_answer_of_the_library_behind_answers_of_ours_is_found() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    for before in [
        get("/soon"),
        get("/empty"),
        get("/late") + &get("/listener"),
        get("/soon").replace("GET", "HEAD"),
        get("/empty").replace("GET", "HEAD") + &get("/soon"),
        get("/big"),
        get("/much"),
        get("/much") + &get("/odd"),
        get("/soon") + &get("/big") + &get("/late"),
        "PUT /late HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        "PUT /soon HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx".to_owned(),
    ] {
        let (text, refused) = read(&(before.clone() + "no request\r\n\r\n")).await;
        assert_eq!(refused, [400], "{before}{text}");
        assert_eq!(text.matches("\r\nX-Request-Id: ").count(), 1, "{before}{text}");
        assert!(text.contains("\nrequest_id: ") && text.starts_with("HTTP/1.1 "), "{before}{text}");
    }
}

#[actix_web::test]
async fn an_answer_of_ours_that_looks_like_one_of_the_library_is_ours() {
    let (text, refused) = read("GET /empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n") && !text.contains("X-Request-Id"), "{text}");
    assert!(refused.is_empty());
    // Behind so much that it is written for itself.
    let much = "GET /much HTTP/1.1\r\nHost: x\r\n\r\n".to_owned();
    let (text, refused) = read(&(much + "GET /odd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
    assert!(text.ends_with(ODD), "{text}");
    assert!(refused.is_empty());
    // At the end of a body of ours, too.
    let (text, refused) = read("GET /odd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(text.ends_with(ODD), "{text}");
    assert!(refused.is_empty());
}

#[actix_web::test]
async fn a_request_knows_the_listener_it_came_in_at() {
    let (text, _) = read("GET /listener HTTP/1.1\r\nHost: y:1\r\nConnection: close\r\n\r\n").await;
    assert!(text.contains("127.0.0.1:"), "{text}");
}
