//! `smartedit health`.

use super::serve::Served;
use super::{Ended, run};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny-random");

fn asked(served: &Served, service: &str) -> Ended {
    run(["health", "--server", served.address(), "--service", service])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_serves_is_healthy() {
    let served = Served::with(&["--model", MODEL]);
    served.ready().await;
    for service in ["", "live", "smartedit.v1.SmartEditService", "inference.GRPCInferenceService"] {
        let answer = asked(&served, service);
        answer.succeeded();
        assert_eq!(answer.out, "SERVING\n");
    }
    asked(&served, "cats").failed(1, &["no service `cats`"]);
}

#[test]
fn a_server_that_cannot_serve_is_alive_but_not_ready() {
    let model = format!("deployments.default.model={MODEL}");
    let served = Served::with(&["--set", &model, "--set", "deployments.default.device=cuda:7"]);
    asked(&served, "").failed(1, &["NOT_SERVING"]);
    asked(&served, "live").succeeded();
}

#[test]
fn what_does_not_answer_is_not_healthy() {
    run(["health", "--server", "not an address"]).failed(2, &["URI"]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    run(["health", "--server", &address, "--timeout", "0.2"]).failed(1, &["200ms"]);
    drop(silent);
    run(["health", "--server", &address]).failed(1, &["refused"]);
}
