//! What the server adds to an edit, and how it stands ten times what it can do: figures, and whether they meet the bars.
//!
//! `-- overhead` and `-- overload` make one measurement, without either both are made. The server runs in a process of its
//! own, on the model directory `SMARTEDIT_TEST_MODEL` or the one that ships.

#![allow(clippy::print_stdout, reason = "it prints what it measures")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smartedit_client::{Client, Code, EditRequest, Resize as ClientResize, RetryPolicy};
use smartedit_core::picture::{DecodeOptions, Format, decode, encode};
use smartedit_core::pipeline::{self, EditOptions, Progress, Resize};
use smartedit_server::config::{CacheConfig, DeploymentConfig, Limits};
use smartedit_server::deployment::{EngineLoader, Loader};
use smartedit_server::engines::Engines;
use smartedit_server::work::Editor;
use smartedit_server::{Config, Server};
use tokio::task::JoinSet;

const SIDE: u32 = 64;
const STEPS: u32 = 10;
const INSTRUCTION: &str = "Make it blue";
const NOTHING_KEPT: CacheConfig = CacheConfig { max_bytes: 0, max_prefix_bytes: 0 };

/// Rounds of the one and the other, and edits in each.
const ROUNDS: u64 = 12;
const EDITS: u64 = 20;

/// Times as many edits a second as the server can make.
const EXCESS: f64 = 10.0;
const FLOOD: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 4;

/// The server's bars: processor time that it adds to an edit, and how soon it refuses.
const ADDED: f64 = 0.02;
const REFUSED: Duration = Duration::from_millis(10);

fn model() -> PathBuf {
    let shipped = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny-random");
    std::env::var_os("SMARTEDIT_TEST_MODEL").map_or_else(shipped, PathBuf::from)
}

fn config() -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        cache: NOTHING_KEPT,
        limits: Limits { max_concurrent: 4096, ..Limits::default() },
        ..Config::single(model())
    }
}

/// Serves until its standard input ends.
async fn serve() {
    let server = Server::bind(config()).await.expect("the server can be bound");
    let (address, shutdown, ready) = (server.local_addr(), server.shutdown(), server.ready(""));
    let serving = tokio::spawn(server.serve());
    ready.await.expect("the model can be loaded");
    println!("{address}");
    let end = std::thread::Builder::new().spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        shutdown.begin();
    });
    end.expect("a thread can be started");
    serving.await.expect("serving ends").expect("it ends well");
}

/// A server in a process of its own.
struct Served {
    process: Child,
    address: String,
}

impl Served {
    fn start() -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut process = Command::new(program)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let output = process.stdout.take().expect("it is piped");
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address).expect("it tells its address");
        Self { process, address: address.trim().to_owned() }
    }

    async fn client(&self) -> Client {
        let once = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
        Client::builder(self.address.clone()).retry(once).connect().await.expect("the server answers")
    }

    /// Processor time of all its threads, those that have ended included.
    fn processor_time(&self) -> Duration {
        processor_time(&self.process.id().to_string())
    }

    /// A line of `/proc/PID/status`, in KiB.
    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells");
        line.trim().trim_end_matches(" kB").parse().expect("it is a number")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Processor time of a process, in user and in system mode.
fn processor_time(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux tells");
    // The name before them may hold anything but this.
    let (_, fields) = stat.rsplit_once(") ").expect("it has a name");
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    // A hundredth of a second each, on every platform that Linux runs on here.
    Duration::from_millis(10 * ticks.sum::<u64>())
}

fn picture(seed: u64) -> Bytes {
    let picture = image::RgbImage::from_fn(256, 256, |x, y| image::Rgb([x as u8, y as u8, seed as u8]));
    encode(&picture, Format::Png, None).expect("a picture can be encoded").into()
}

fn request(seed: u64) -> EditRequest {
    let mut request = EditRequest::new(picture(seed), INSTRUCTION);
    request.options.seed = Some(seed);
    request.options.steps = Some(STEPS);
    request.options.resize = ClientResize::Stretch(SIDE, SIDE);
    request
}

fn edit_as_library(editor: &Arc<dyn Editor>, seed: u64) -> Vec<u8> {
    let options = EditOptions {
        seed,
        steps: Some(STEPS as usize),
        resize: Some(Resize::Stretch { width: SIDE, height: SIDE }),
        ..EditOptions::default()
    };
    let image = decode(&picture(seed), &DecodeOptions::default()).expect("the picture can be decoded");
    let request = pipeline::EditRequest { image, instruction: INSTRUCTION.to_owned(), options };
    let mut edit = Arc::clone(editor).edit(request).expect("the request is valid");
    loop {
        if let Progress::Finished(output) = edit.advance().expect("the edit goes on") {
            return encode(&output.image, Format::Png, None).expect("the result can be encoded");
        }
    }
}

/// Processor time of edits through the server, beside that of the same edits as a library, in turns.
async fn overhead() -> bool {
    let loader = EngineLoader::new(Engines::built_in(), &NOTHING_KEPT);
    let editor = loader.load(&DeploymentConfig::new(model())).unwrap_or_else(|error| panic!("{error:?}"));
    let served = Served::start();
    let client = served.client().await;
    let pictures = |seed| std::hint::black_box(picture(seed));
    let mut times = [Duration::ZERO; 2];
    for round in 0..=ROUNDS {
        let seeds = round * EDITS..(round + 1) * EDITS;
        let before = served.processor_time();
        for seed in seeds.clone() {
            client.edit(request(seed)).await.expect("the edit succeeds");
        }
        let through_server = served.processor_time() - before;
        // Sources are made outside of the server.
        let before = processor_time("self");
        seeds.clone().for_each(|seed| drop(pictures(seed)));
        let making = processor_time("self") - before;
        let before = processor_time("self");
        seeds.for_each(|seed| drop(edit_as_library(&editor, seed)));
        let as_library = (processor_time("self") - before).saturating_sub(making);
        // The first round warms both up.
        if round > 0 {
            times[0] += through_server;
            times[1] += as_library;
        }
    }
    let edits = (ROUNDS * EDITS) as f64;
    let [server, library] = times.map(|time| 1e3 * time.as_secs_f64() / edits);
    let added = server / library - 1.0;
    println!(
        "processor time of an edit ({SIDE}×{SIDE}, {STEPS} steps): {server:.1} ms through the server, \
         {library:.1} ms as a library: {:+.1} % (bar: {:+.1} %)",
        100.0 * added,
        100.0 * ADDED
    );
    added <= ADDED
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

/// What became of an edit, and how long that took.
enum Outcome {
    Served(Duration),
    Refused(Duration),
    Other(String),
}

async fn outcome(client: Client, request: EditRequest) -> Outcome {
    let started = Instant::now();
    let outcome = client.edit(request).await;
    let took = started.elapsed();
    match outcome {
        Ok(_) => Outcome::Served(took),
        Err(error)
            if error.code() == Some(Code::ResourceExhausted)
                && error.rejection().is_some_and(|rejection| rejection.retry_delay.is_some()) =>
        {
            Outcome::Refused(took)
        }
        Err(error) => Outcome::Other(error.to_string()),
    }
}

/// Ten times the edits that the server can make.
async fn overload() -> bool {
    let served = Served::start();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(served.client().await);
    }
    let mut lone = Vec::new();
    for seed in 0..12 {
        let started = Instant::now();
        clients[0].edit(request(seed)).await.expect("the edit succeeds");
        lone.extend((seed > 1).then(|| started.elapsed()));
    }
    let service = percentile(&mut lone, 50);
    let before = served.memory("VmRSS:");
    let requests: Vec<_> = (0..64).map(request).collect();
    let mut arrivals = tokio::time::interval(service.div_f64(EXCESS));
    arrivals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut edits = JoinSet::new();
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < FLOOD {
        arrivals.tick().await;
        edits.spawn(outcome(clients[sent % CONNECTIONS].clone(), requests[sent % requests.len()].clone()));
        sent += 1;
    }
    let (mut accepted, mut refused, mut others) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(outcome) = edits.join_next().await {
        match outcome.expect("the task ends") {
            Outcome::Served(took) => accepted.push(took),
            Outcome::Refused(took) => refused.push(took),
            Outcome::Other(error) => others.push(error),
        }
    }
    let millis = |time: Duration| 1e3 * time.as_secs_f64();
    let bound = service * Limits::default().max_queue as u32;
    println!(
        "{sent} edits in {:.0} s, {EXCESS} times what can be done one by one ({:.1} ms each)",
        FLOOD.as_secs_f64(),
        millis(service)
    );
    println!(
        "{} accepted, {} refused with a time to retry, otherwise: {others:?}",
        accepted.len(),
        refused.len()
    );
    if accepted.is_empty() || refused.is_empty() {
        println!("nothing was accepted, or nothing refused");
        return false;
    }
    let (slowest, soon) = (percentile(&mut accepted, 99), percentile(&mut refused, 99));
    println!(
        "refused after {:.2} ms (median), {:.2} ms (99 %; bar: {:.0} ms)",
        millis(percentile(&mut refused, 50)),
        millis(soon),
        millis(REFUSED)
    );
    println!(
        "accepted: done after {:.0} ms (median), {:.0} ms (99 %; bar: max_queue × a lone edit = {:.0} ms)",
        millis(percentile(&mut accepted, 50)),
        millis(slowest),
        millis(bound)
    );
    println!("memory: {before} KiB before, {} KiB at most", served.memory("VmHWM:"));
    others.is_empty() && soon <= REFUSED && slowest <= bound
}

fn main() -> ExitCode {
    smartedit_allocator::share_arena();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if asked.first().is_some_and(|asked| asked == "serve") {
        runtime.block_on(serve());
        return ExitCode::SUCCESS;
    }
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    let mut met = true;
    if wants("overhead") {
        met &= runtime.block_on(overhead());
    }
    if wants("overload") {
        met &= runtime.block_on(overload());
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
