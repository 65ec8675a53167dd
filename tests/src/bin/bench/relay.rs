//! The relay against a direct connection and against HAProxy, both modes: as fast as it goes, and at a pace that leaves
//! room.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::harness::binaries;
use tests::harness::condition::{SOON, eventually};

use super::report::{Samples, figure, section};

const REQUESTS: usize = 20_000;
const CLIENTS: usize = 16;
const SECONDS: f64 = 4.0;
const BULK: usize = 1 << 30;
const PIECE: usize = 1 << 18;
/// What a server's own work on a small request takes.
const WORK: Duration = Duration::from_millis(1);
/// Bytes per second of a paced answer: 10 Gbit/s.
const PACE: f64 = 1.25e9;

/// Answers `GET /` with two bytes, `GET /work` with the same after a while, `GET /bulk` with a gigabyte, and `GET /paced`
/// with the same at a pace, on kept connections.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    let zeros = vec![0; PIECE];
    loop {
        let first = head(&mut reader)?;
        let paced = first.starts_with("GET /paced");
        let bulk = paced || first.starts_with("GET /bulk");
        let length = if bulk { BULK } else { 2 };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        if bulk {
            reader.get_mut().write_all(answer.as_bytes()).ok()?;
            let begun = Instant::now();
            for piece in 0..BULK / PIECE {
                let due = Duration::from_secs_f64((piece * PIECE) as f64 / PACE);
                if let Some(early) = due.checked_sub(begun.elapsed()).filter(|_| paced) {
                    std::thread::sleep(early);
                }
                reader.get_mut().write_all(&zeros).ok()?;
            }
        } else {
            if first.starts_with("GET /work") {
                std::thread::sleep(WORK);
            }
            reader.get_mut().write_all((answer + "ok").as_bytes()).ok()?;
        }
    }
}

/// The first line of a head, which is read whole.
fn head(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut first = String::new();
    let mut line = String::new();
    reader.read_line(&mut first).ok().filter(|count| *count > 0)?;
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        if line == "\r\n" {
            return Some(first);
        }
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, path: &str) {
        self.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").as_bytes()).expect("sent");
    }

    fn ask(&mut self, path: &str) {
        self.send(path);
        assert!(head(&mut self.0).expect("an answer").contains("200"));
        let mut body = [0; 2];
        self.0.read_exact(&mut body).expect("a body");
    }

    /// Bytes per second of one large answer.
    fn bulk(&mut self, path: &str) -> f64 {
        self.send(path);
        let begun = Instant::now();
        head(&mut self.0).expect("an answer");
        let mut left = BULK;
        let mut buffer = vec![0; PIECE];
        while left > 0 {
            let count = self.0.read(&mut buffer).expect("a body");
            assert!(count > 0, "the answer ends early");
            left -= count;
        }
        BULK as f64 / begun.elapsed().as_secs_f64()
    }
}

struct Relay {
    process: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Relay {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("relay.sock");
        let process = Command::new(binaries::agent())
            .arg("relay")
            .args([Path::new("--state-dir"), &folder.path().join("state"), Path::new("--socket"), &socket])
            .args(["--ports", "27000-27099"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the relay starts");
        let relay = Self { process, socket, _folder: folder };
        eventually(SOON, "the relay listens", || {
            UnixStream::connect(&relay.socket).map(drop).map_err(|why| why.to_string())
        });
        relay
    }

    fn publish(&self, port: u16, mode: &str, endpoint: SocketAddr) -> SocketAddr {
        let request = json!({
            "do": "set_route", "port": port, "mode": mode, "key": format!("bench:{mode}"), "release": "1", "generation": 1,
            "endpoint": endpoint.to_string(),
        });
        let mut stream = UnixStream::connect(&self.socket).expect("the control socket");
        stream.write_all(format!("{request}\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("an answer");
        assert!(!answer.contains("E_"), "{answer}");
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// HAProxy in front of the server, two threads as on this machine's cores, with splicing.
struct Haproxy {
    process: Child,
    version: String,
    _folder: tempfile::TempDir,
}

impl Haproxy {
    const TCP: u16 = 27003;
    const HTTP: u16 = 27004;

    fn start(server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("haproxy.cfg");
        let (tcp, http) = (Self::TCP, Self::HTTP);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let text = format!(
            "global\n  nbthread {threads}\ndefaults\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
             option splice-auto\nlisten tcp\n  mode tcp\n  bind 127.0.0.1:{tcp}\n  server s {server}\n\
             listen http\n  mode http\n  http-reuse always\n  bind 127.0.0.1:{http}\n  server s {server}\n"
        );
        std::fs::write(&file, text).expect("written");
        let told = Command::new("haproxy").arg("-v").output().expect("haproxy is installed");
        let version = String::from_utf8_lossy(&told.stdout).split_whitespace().nth(2).unwrap_or_default().to_owned();
        let process = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("haproxy starts");
        let haproxy = Self { process, version, _folder: folder };
        eventually(SOON, "haproxy listens", || {
            TcpStream::connect(("127.0.0.1", tcp)).map(drop).map_err(|why| why.to_string())
        });
        haproxy
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Microseconds of requests one after the other on one connection.
fn latency(address: SocketAddr) -> Samples {
    let mut client = Client::connect(address);
    (0..500).for_each(|_| client.ask("/"));
    let one = |client: &mut Client| {
        let begun = Instant::now();
        client.ask("/");
        begun.elapsed().as_secs_f64() * 1e6
    };
    Samples::of((0..REQUESTS).map(|_| one(&mut client)).collect())
}

/// Requests per second of several connections at once.
fn throughput(address: SocketAddr, path: &'static str) -> f64 {
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(SECONDS);
    let work = move || {
        let mut client = Client::connect(address);
        let mut count = 0_u64;
        while Instant::now() < end {
            client.ask(path);
            count += 1;
        }
        count
    };
    let workers: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(work)).collect();
    let count: u64 = workers.into_iter().map(|worker| worker.join().expect("a worker")).sum();
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Seconds that all threads of a process have run.
fn used(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let nanoseconds = |thread: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    threads.filter_map(nanoseconds).sum::<f64>() / 1e9
}

/// Lets every thread of this process and of `others` run on these cores only.
fn pin(others: &[u32], cores: &str) {
    for pid in others.iter().chain([&std::process::id()]) {
        let done = Command::new("taskset").args(["-a", "-p", "-c", cores, &pid.to_string()]).output().expect("taskset");
        assert!(done.status.success(), "{done:?}");
    }
}

/// Median microseconds of a request on each way while everything runs on one core: no core wakes another.
fn on_one_core(ways: &[Way]) -> Vec<f64> {
    let processes: Vec<u32> = ways.iter().filter_map(|(_, _, process)| *process).collect();
    // What may be used is less once it is pinned.
    let last = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) - 1;
    pin(&processes, "0");
    let medians = ways.iter().map(|(_, address, _)| latency(*address).median()).collect();
    pin(&processes, &format!("0-{last}"));
    medians
}

/// A name, where to connect, and the process between client and server.
type Way = (&'static str, SocketAddr, Option<u32>);

pub fn measure() -> String {
    let direct = server();
    let relay = Relay::start();
    let haproxy = Haproxy::start(direct);
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (ours, theirs) = (Some(relay.process.id()), Some(haproxy.process.id()));
    let ways: [Way; 5] = [
        ("direct", direct, None),
        ("relay, `tcp`", relay.publish(27001, "tcp", direct), ours),
        ("relay, `http`", relay.publish(27002, "http", direct), ours),
        ("HAProxy, `tcp`", local(Haproxy::TCP), theirs),
        ("HAProxy, `http`", local(Haproxy::HTTP), theirs),
    ];
    format!("{}\n{}", limits(&ways, &haproxy.version), paced(&ways))
}

/// As fast as it goes.
fn limits(ways: &[Way], haproxy: &str) -> String {
    let mut rows = Vec::new();
    let mut base = None;
    let on_one_core = on_one_core(ways);
    for (&(name, address, _), alone) in ways.iter().zip(&on_one_core) {
        let latency = latency(address);
        let direct = *base.get_or_insert(latency.median());
        let bulk = Samples::of((0..3).map(|_| Client::connect(address).bulk("/bulk") / 1e6).collect());
        rows.push(vec![
            name.to_owned(),
            figure(latency.median()),
            figure(latency.at(0.99)),
            figure(latency.median() - direct),
            figure(alone - on_one_core[0]),
            figure(throughput(address, "/")),
            figure(bulk.median()),
        ]);
    }
    section(
        "Relay",
        &[
            "way",
            "request µs, median",
            "99 %",
            "added, median",
            "added on one core",
            "requests/s",
            "MB/s, one connection",
        ],
        &rows,
        &format!(
            "Kept HTTP/1.1 connections over loopback; {REQUESTS} requests one after the other, then {CLIENTS} connections for \
             {SECONDS} s, then a gigabyte. On which core the kernel wakes a thread decides on tens of microseconds; with everything \
             on one core, only the work counts. Client, server and relay share the machine's cores, and each way uses all of them: \
             requests/s and MB/s compare processor time, of which any relay needs its own beside that of the direct way. \
             HAProxy {haproxy} has a thread per core and splices."
        ),
    )
}

/// With cores to spare: what a client of a service that works, or of a network, gets.
fn paced(ways: &[Way]) -> String {
    let mut rows = Vec::new();
    let mut base = None;
    let share = |part: f64, whole: f64| format!("{:.1}", 100.0 * part / whole);
    for &(name, address, process) in ways {
        let rate = throughput(address, "/work");
        let begun = (Instant::now(), process.map(used));
        let pace = Samples::of((0..3).map(|_| Client::connect(address).bulk("/paced") / 1e6).collect()).median();
        let cores = begun.1.zip(process).map(|(before, pid)| (used(pid) - before) / begun.0.elapsed().as_secs_f64());
        let (all_rate, all_pace) = *base.get_or_insert((rate, pace));
        rows.push(vec![
            name.to_owned(),
            figure(rate),
            share(rate, all_rate),
            figure(pace),
            share(pace, all_pace),
            cores.map(|cores| format!("{cores:.2}")).unwrap_or_default(),
        ]);
    }
    section(
        "Relay, with cores to spare",
        &["way", "requests/s", "% of direct", "MB/s, one connection", "% of direct", "cores used for that"],
        &rows,
        &format!(
            "The same, but the server waits {} ms before each answer to one of {CLIENTS} connections, as for a disk or another \
             service, and sends the gigabyte at 10 Gbit/s.",
            WORK.as_millis()
        ),
    )
}
