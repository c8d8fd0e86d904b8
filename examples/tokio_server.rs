//! A server that runs guests of several tenants on a thread pool, asynchronously, and profiles each by its labels:
//! `cargo run --bin tokio_server [FOLDER]`.
//!
//! A request is a line `TENANT WORK`. Each runs in a store of its own, on a fiber that is suspended when the guest waits
//! for the host, and goes on on whatever thread is free. A profile of a tenant holds nothing of the others.

use std::error::Error;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flamewalk::profile::Metadata;
use flamewalk::{Guest, Options, Profiler};
use flamewalk_flamegraphs::svg;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use wasmtime::{Config, Engine, Linker, Module, Store};

/// What every tenant runs: parses a request, works on it, and asks the host's database in between.
const GUEST: &str = r#"(module $handler
  (import "database" "get" (func $get))
  (func $work (param $turns i32)
    (loop (br_if 0 (local.tee $turns (i32.sub (local.get $turns) (i32.const 1))))))
  (func $parse (call $work (i32.const 20000)))
  (func $respond (param $turns i32) (call $work (local.get $turns)))
  (func (export "handle") (param $turns i32)
    (call $parse)
    (call $get)
    (call $respond (local.get $turns))))"#;

/// The tenants, and the work of each of their requests.
const TENANTS: [(&str, i32); 3] = [("acme", 600_000), ("globex", 300_000), ("initech", 100_000)];
const REQUESTS: usize = 300;

type Failure = Box<dyn Error + Send + Sync>;

/// What the handlers of all requests share.
struct Server {
    profiler: Profiler,
    module: Module,
    linker: Linker<()>,
}

impl Server {
    async fn handle(&self, tenant: &str, work: i32) -> Result<(), Failure> {
        let mut store = Store::new(self.module.engine(), ());
        // All that profiling adds to a request.
        let labels = self.profiler.attach(&mut store)?;
        labels.set([("tenant", tenant)].into_iter().collect());
        store.epoch_deadline_async_yield_and_update(1);
        let instance = self.linker.instantiate_async(&mut store, &self.module).await?;
        instance.get_typed_func::<i32, ()>(&mut store, "handle")?.call_async(&mut store, work).await?;
        Ok(())
    }

    async fn serve(self: Arc<Self>, connection: TcpStream) -> Result<(), Failure> {
        let mut lines = BufReader::new(connection).lines();
        while let Some(line) = lines.next_line().await? {
            let (tenant, work) = line.split_once(' ').ok_or("a request is `TENANT WORK`")?;
            self.handle(tenant, work.parse()?).await?;
            lines.get_mut().get_mut().write_all(b"done\n").await?;
        }
        Ok(())
    }
}

/// Sends requests of one tenant over one connection.
async fn client(address: std::net::SocketAddr, tenant: &'static str, work: i32) -> Result<(), Failure> {
    let mut connection = BufReader::new(TcpStream::connect(address).await?);
    let mut response = String::new();
    for _ in 0..REQUESTS {
        connection.get_mut().write_all(format!("{tenant} {work}\n").as_bytes()).await?;
        response.clear();
        connection.read_line(&mut response).await?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned()));
    let mut config = Config::new();
    config.epoch_interruption(true);
    let engine = Engine::new(&config)?;
    let binary = wat::parse_str(GUEST)?;
    let module = Module::new(&engine, &binary)?;
    let mut linker = Linker::new(&engine);
    linker.func_wrap_async("database", "get", |_, ()| {
        Box::new(tokio::time::sleep(Duration::from_micros(200)))
    })?;
    let profiler = Profiler::new(Options::default())?;
    profiler.register_module(&module, Guest::named("handler").binary(binary))?;
    let server = Arc::new(Server { profiler, module, linker });

    server.profiler.start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Guests give way to others each time that this ticks.
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            engine.increment_epoch();
        }
    });
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accepting = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&accepting).serve(connection));
            }
        });
        let clients = TENANTS.map(|(tenant, work)| tokio::spawn(client(address, tenant, work)));
        for client in clients {
            client.await??;
        }
        Ok::<(), Failure>(())
    })?;

    for (tenant, _) in TENANTS {
        let labels = [("tenant", tenant)].into_iter().collect();
        let profile = server.profiler.snapshot_labelled(labels, Metadata::default())?;
        let path = folder.join(format!("{tenant}.svg"));
        svg(&profile, &Default::default(), File::create(&path)?)?;
        println!("{tenant}: {:.1} ms, wrote {}", profile.total().weight as f64 / 1e6, path.display());
    }
    server.profiler.stop(Metadata::default())?;
    Ok(())
}
