//! What a stream reports, and that the seed decides the picture.

use smartedit_client::{EditRequest, Event, Stage};

use crate::running::{INSTRUCT_PIX2PIX, Running, SMARTEDIT, decoded, request};

const STEPS: u32 = 4;

/// Every event of an edit.
async fn events(server: &Running, request: EditRequest) -> Vec<Event> {
    let mut stream = server.client.edit_stream(request).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event.unwrap());
    }
    events
}

/// Starts and ends of stages.
fn stages(events: &[Event]) -> Vec<(&'static str, Stage)> {
    let border = |event: &Event| match event {
        Event::StageStarted(stage) => Some(("started", *stage)),
        Event::StageFinished { stage, .. } => Some(("finished", *stage)),
        _ => None,
    };
    events.iter().filter_map(border).collect()
}

fn borders(stages: &[Stage]) -> Vec<(&'static str, Stage)> {
    stages.iter().flat_map(|stage| [("started", *stage), ("finished", *stage)]).collect()
}

/// The last step before each step event, the previews on the way, and what surrounds them. A reader that is slow
/// misses steps, so not every one of them is certain; their order is.
fn check_steps(events: &[Event], interval: u32) {
    let mut last = 0;
    let mut previews = Vec::new();
    let mut denoising = false;
    for event in events {
        match event {
            Event::StageStarted(stage) => denoising = *stage == Stage::Denoiser,
            Event::StageFinished { stage: Stage::Denoiser, .. } => denoising = false,
            Event::Step { index, total, preview } => {
                assert!(denoising, "steps are the denoiser's");
                assert!(*index > last && *total == STEPS, "{index} of {total} after {last}");
                last = *index;
                previews.extend(preview.clone().inspect(|preview| assert!(preview.step <= *index)));
            }
            _ => {}
        }
    }
    assert_eq!(last, STEPS);
    // There is one after each interval but the last; of those that a slow reader misses, the latest is kept.
    assert_eq!(previews.last().map(|preview| preview.step), Some((STEPS - 1) / interval * interval));
    for preview in previews {
        assert!(preview.step.is_multiple_of(interval), "a preview after step {}", preview.step);
        assert_eq!(preview.mime_type, "image/jpeg");
        assert_eq!(decoded(&preview.image).dimensions(), (64, 64));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn smartedit_reports_everything_in_order() {
    let server = Running::start().await;
    for interval in [1, 2, 3] {
        let mut request = request(STEPS);
        request.options.preview_interval = Some(interval);
        let events = events(&server, request).await;

        let accepted = &events[0];
        let Event::Accepted { request_id, deployment, seed: 7 } = accepted else { panic!("{accepted:?}") };
        assert_eq!(deployment, SMARTEDIT);
        assert!(matches!(events[1], Event::Queued(0)), "{:?}", events[1]);
        let order = [
            Stage::VisionEncoder,
            Stage::LanguageModel,
            Stage::Connector,
            Stage::VaeEncoder,
            Stage::Denoiser,
            Stage::VaeDecoder,
        ];
        assert_eq!(stages(&events), borders(&order));
        let place = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).unwrap();
        let reply = place(&|event| matches!(event, Event::Reply(_)));
        assert!(reply > place(&|event| *event == Event::StageStarted(Stage::LanguageModel)));
        assert!(reply < place(&|event| *event == Event::StageStarted(Stage::Connector)));
        check_steps(&events, interval);

        let Some(Event::Finished(edited)) = events.last() else { panic!("{:?}", events.last()) };
        assert_eq!(edited.request_id, *request_id);
        assert_eq!(edited.timings.stages.iter().map(|timing| timing.stage).collect::<Vec<_>>(), order);
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Finished(_))).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instruct_pix2pix_reports_its_own_stages_and_no_reply() {
    let server = Running::start().await;
    let mut request = request(STEPS);
    request.deployment = Some(INSTRUCT_PIX2PIX.to_owned());
    let events = events(&server, request).await;
    let order = [Stage::TextEncoder, Stage::VaeEncoder, Stage::Denoiser, Stage::VaeDecoder];
    assert_eq!(stages(&events), borders(&order));
    assert!(
        !events.iter().any(|event| matches!(event, Event::Reply(_) | Event::Step { preview: Some(_), .. }))
    );
    assert!(matches!(events.last(), Some(Event::Finished(edited)) if edited.reply.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seed_decides_the_picture_whichever_the_call() {
    let server = Running::start().await;
    let first = server.client.edit(request(2)).await.unwrap();
    let again = server.client.edit(request(2)).await.unwrap();
    let streamed = server.client.edit_stream(request(2)).await.unwrap().finish().await.unwrap();
    assert_eq!(first.image, again.image);
    assert_eq!(first.image, streamed.image);
    assert_eq!((first.seed, streamed.seed), (7, 7));

    let mut other = request(2);
    other.options.seed = Some(8);
    assert_ne!(server.client.edit(other).await.unwrap().image, first.image);

    // A seed that the server chose is reported, and repeats the edit.
    let mut any = request(2);
    any.options.seed = None;
    let chosen = server.client.edit(any.clone()).await.unwrap();
    any.options.seed = Some(chosen.seed);
    assert_eq!(server.client.edit(any).await.unwrap().image, chosen.image);
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_at_the_same_time_do_not_meet() {
    let server = Running::start().await;
    let edit = |seed: u64| {
        let (client, mut request) = (server.client.clone(), request(2));
        request.options.seed = Some(seed);
        async move { client.edit(request).await.unwrap().image }
    };
    let alone = [edit(1).await, edit(2).await, edit(3).await];
    let (first, second, third) = tokio::join!(edit(1), edit(2), edit(3));
    assert_eq!([first, second, third], alone);
}
