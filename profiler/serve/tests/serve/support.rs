//! A host under load, and a client that sends what it is told to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use flamewalk::{Guest, Profiler};
use flamewalk_serve::{OnDemand, Options, Server};
use wasmtime::{Engine, Instance, Module, Store};

/// There is one profiler in a process at a time, and so one test.
static ALONE: Mutex<()> = Mutex::new(());

/// Two tenants' guests that run on a thread each, and their profiler.
pub(crate) struct Host {
    pub(crate) profiler: Arc<Profiler>,
    done: Arc<AtomicBool>,
    tenants: Vec<JoinHandle<()>>,
    _alone: MutexGuard<'static, ()>,
}

pub(crate) const TENANTS: [&str; 2] = ["acme", "globex"];

impl Host {
    pub(crate) fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let profiler = Arc::new(Profiler::new(flamewalk::Options::default()).unwrap());
        let engine = Engine::default();
        let done = Arc::new(AtomicBool::new(false));
        let tenants = TENANTS.map(|tenant| {
            let binary = wat::parse_str(format!(
                "(module (func $work_of_{tenant} (export \"run\") (param i32)
                   (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"
            ));
            let binary = binary.unwrap();
            let module = Module::new(&engine, &binary).unwrap();
            profiler.register_module(&module, Guest::named(tenant).binary(binary)).unwrap();
            let (profiler, done) = (Arc::clone(&profiler), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut store = Store::new(module.engine(), ());
                profiler.attach(&mut store).unwrap().set([("tenant", tenant)].into_iter().collect());
                let run = Instance::new(&mut store, &module, &[]).unwrap();
                let run = run.get_typed_func::<i32, ()>(&mut store, "run").unwrap();
                while !done.load(Ordering::Relaxed) {
                    run.call(&mut store, 100_000).unwrap();
                }
            })
        });
        Self { profiler, done, tenants: tenants.into(), _alone: alone }
    }

    pub(crate) fn on_demand(&self, options: Options) -> OnDemand {
        OnDemand::new(Arc::clone(&self.profiler), options)
    }

    pub(crate) fn serve(&self, options: Options) -> Server {
        Server::tcp(self.on_demand(options), ([127, 0, 0, 1], 0).into()).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        self.tenants.drain(..).for_each(|tenant| tenant.join().unwrap());
    }
}

pub(crate) struct Response {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// Everything that comes until the server hangs up.
fn response(mut stream: impl Read) -> Option<Response> {
    let mut bytes = Vec::new();
    // A server that does not want to read the rest of a request may reset the connection after its answer.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap().to_lowercase();
    let status = head.strip_prefix("http/1.1 ")?.get(..3)?.parse().unwrap();
    Some(Response { status, head, body: bytes[end + 4..].to_vec() })
}

/// Sends these bytes, and reads the answer.
pub(crate) fn send(address: SocketAddr, bytes: &[u8]) -> Option<Response> {
    let mut stream = TcpStream::connect(address).unwrap();
    let _ = stream.write_all(bytes);
    response(stream)
}

pub(crate) fn request(method: &str, path: &str, more: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n").into_bytes()
}

pub(crate) fn get(server: &Server, path: &str) -> Response {
    send(server.address().unwrap(), &request("GET", path, "")).unwrap()
}

/// As [`get`], through a Unix socket.
pub(crate) fn get_by_socket(path: &Path, uri: &str) -> Response {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(&request("GET", uri, "")).unwrap();
    response(stream).unwrap()
}

/// Sends a request and does not wait for its answer.
pub(crate) fn begin(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address().unwrap()).unwrap();
    stream.write_all(&request("GET", path, "")).unwrap();
    stream
}

/// Asks for the statistics until so many profiles are being taken.
pub(crate) fn wait_until_under_way(server: &Server, count: u64) {
    loop {
        let stats = get(server, "/debug/pprof/stats");
        let stats: serde_json::Value = serde_json::from_slice(&stats.body).unwrap();
        if stats["requests"]["under_way"] == count {
            break;
        }
        std::thread::yield_now();
    }
}
