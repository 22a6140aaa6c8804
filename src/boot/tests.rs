//! The end of a server. Method: a real actix server on loopback with routes of our own, signals and
//! an engine made by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use actix_web::web::{self, ServiceConfig};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::engine::EngineControl;
use super::signals::Stop;
use super::*;
use crate::config::{Inputs, load};

struct Running {
    address: SocketAddr,
    signals: mpsc::Sender<Stop>,
    fail: Option<oneshot::Sender<String>>,
    stopping: Stopping,
    engine_stopped: Arc<AtomicBool>,
    code: tokio::task::JoinHandle<u8>,
}

async fn slow() -> &'static str {
    tokio::time::sleep(Duration::from_millis(400)).await;
    "finished"
}

fn routes(config: &mut ServiceConfig) {
    config.route("/slow", web::get().to(slow)).route("/fast", web::get().to(|| async { "fast" }));
}

fn start(drain_seconds: &str) -> Running {
    start_with(drain_seconds, "0")
}

fn start_with(drain_seconds: &str, delay_seconds: &str) -> Running {
    let variable = |name: &str| match name {
        "DRAIN_SECONDS" => Some(drain_seconds.into()),
        "DRAIN_DELAY_SECONDS" => Some(delay_seconds.into()),
        "HTTP_WORKERS" => Some("1".into()),
        _ => None,
    };
    let config = load(&Inputs { file: None, variable: &variable, flags: Vec::new() }).unwrap().config;
    let listener = listen::start(listen::bind("127.0.0.1", 0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let listeners = server::Listeners { main: listener, admin: None, tls: None };
    let server = server::start(&config, 1024, listeners, routes, front::reception(&config, None)).unwrap();
    let stopping = Stopping::default();
    let engine_stopped = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&engine_stopped);
    let (fail, failed) = oneshot::channel();
    let control = EngineControl {
        fatal: async move {
            match failed.await {
                Ok(reason) => reason,
                Err(_) => std::future::pending().await,
            }
        }
        .boxed_local(),
        quiet: std::future::ready(()).boxed_local(),
        stop: Box::new(move |_| async move { stopped.store(true, Ordering::SeqCst) }.boxed_local()),
    };
    let (signals, receiver) = Signals::for_test();
    let seconds = Duration::from_secs;
    let (total, delay) = (seconds(config.limits.drain_seconds), seconds(config.limits.drain_delay_seconds));
    let times = drain::DrainTimes { total, delay };
    let code = actix_rt::spawn(drain::until_stopped(server, control, receiver, stopping.clone(), times));
    Running { address, signals, fail: Some(fail), stopping, engine_stopped, code }
}

async fn ask(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut piece = [0; 1024];
    while !text.ends_with(end) {
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    text
}

#[actix_web::test]
async fn a_request_in_flight_is_finished_and_the_status_is_0() {
    for signal in [Stop::Terminate, Stop::Interrupt] {
        let server = start("10");
        let mut stream = ask(server.address, "/slow").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.signals.send(signal).await.unwrap();
        assert!(read_until(&mut stream, "finished").await.starts_with("HTTP/1.1 200"));
        assert_eq!(server.code.await.unwrap(), exit::OK);
        assert!(server.stopping.refuses() && server.engine_stopped.load(Ordering::SeqCst));
        assert!(TcpStream::connect(server.address).await.is_err());
    }
}

#[actix_web::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let server = start("30");
    let mut idle = ask(server.address, "/fast").await;
    read_until(&mut idle, "fast").await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    let begun = Instant::now();
    server.signals.send(Stop::Terminate).await.unwrap();
    assert_eq!(server.code.await.unwrap(), exit::OK);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[actix_web::test]
async fn the_drain_time_is_a_bound() {
    let server = start("1");
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"GET /fast HTTP/1.1\r\nHost: x\r\nX: ").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    server.signals.send(Stop::Terminate).await.unwrap();
    assert_eq!(server.code.await.unwrap(), exit::OK);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[actix_web::test]
async fn during_the_delay_the_server_serves_on_and_says_that_it_stops() {
    let server = start_with("20", "2");
    server.signals.send(Stop::Terminate).await.unwrap();
    while !server.stopping.is_announced() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!server.stopping.refuses());
    // On a connection that is opened only now.
    let mut stream = ask(server.address, "/fast").await;
    assert!(read_until(&mut stream, "fast").await.starts_with("HTTP/1.1 200"));
    assert_eq!(server.code.await.unwrap(), exit::OK);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[actix_web::test]
async fn the_delay_is_within_the_drain_time() {
    let server = start_with("1", "3600");
    let begun = Instant::now();
    server.signals.send(Stop::Terminate).await.unwrap();
    assert_eq!(server.code.await.unwrap(), exit::OK);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[actix_web::test]
async fn an_engine_that_cannot_go_on_ends_the_process() {
    let mut server = start("10");
    server.fail.take().unwrap().send("metadata actor died".to_owned()).unwrap();
    assert_eq!(server.code.await.unwrap(), exit::FATAL);
    assert!(!server.engine_stopped.load(Ordering::SeqCst));
}
