//! Samplers, guidance, noise and the denoising loop against the reference's recorded tensors.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and prints what it measures")]

mod support;

use ndarray::{Array4, ArrayD, Axis, Ix4, s};
use proptest::prelude::*;
use smartedit_core::diffusion::{
    BRANCHES, Branch, Denoising, DiffusionError, Guidance, NoiseSource, RecordedNoise, Schedule, SeededNoise,
    TorchNoise,
};
use smartedit_core::model::{BetaSchedule, PredictionType, SchedulerConfig, SchedulerKind, TimestepSpacing};
use support::{Pack, Tensors, golden, json, relative_difference};

/// Rounding of single-precision arithmetic in another order, as a part of the largest value.
const ROUNDING: f32 = 1e-6;

/// The same, through a loop whose latents lose digits in each step: the reference guides noise-free latents.
const LOOP: f32 = 1e-5;

fn config() -> SchedulerConfig {
    SchedulerConfig {
        default: SchedulerKind::EulerAncestral,
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: BetaSchedule::ScaledLinear,
        num_train_timesteps: 1000,
        steps_offset: 1,
        prediction_type: PredictionType::Epsilon,
        timestep_spacing: TimestepSpacing::Linspace,
    }
}

/// The pack's own configuration.
fn pack_config(pack: &Pack) -> SchedulerConfig {
    let json = json(&pack.official(&["model_index.json"]).join("scheduler/scheduler_config.json"));
    SchedulerConfig {
        beta_start: json["beta_start"].as_f64().unwrap(),
        beta_end: json["beta_end"].as_f64().unwrap(),
        beta_schedule: serde_json::from_value(json["beta_schedule"].clone()).unwrap(),
        num_train_timesteps: json["num_train_timesteps"].as_u64().unwrap() as usize,
        ..config()
    }
}

fn array4(tensors: &Tensors, name: &str) -> Array4<f32> {
    tensors.f32(name).into_dimensionality::<Ix4>().unwrap()
}

#[track_caller]
fn assert_close(what: &str, ours: &Array4<f32>, reference: &Array4<f32>, tolerance: f32) {
    let difference = relative_difference(&ours.clone().into_dyn(), &reference.clone().into_dyn());
    println!("{what}: {difference:.1e}");
    assert!(difference <= tolerance, "{what}: {difference:e} > {tolerance:e}");
}

fn vector(values: impl Iterator<Item = f32>) -> ArrayD<f32> {
    ndarray::Array1::from_iter(values).into_dyn()
}

#[test]
fn golden_schedules() {
    let samplers = Tensors::open(&golden("samplers/samplers.safetensors"));
    let sigma = json(&golden("samplers/samplers.json"));
    for kind in SchedulerKind::ALL {
        for steps in [4, 10, 20, 100] {
            let schedule = Schedule::new(&config(), kind, steps).unwrap();
            let name = format!("{}.{steps}", kind.name());
            let timesteps = samplers.f32(&format!("sched.{name}.timesteps"));
            assert!(relative_difference(&vector(schedule.timesteps()), &timesteps) <= ROUNDING, "{name}");
            if kind == SchedulerKind::Ddim {
                assert_eq!(schedule.init_noise_sigma(), 1.0);
                continue;
            }
            let sigmas = samplers.f32(&format!("sched.{name}.sigmas"));
            assert!(relative_difference(&vector(schedule.levels()), &sigmas) <= ROUNDING, "{name}");
            let reference = sigma["init_noise_sigma"][format!("{name}.init_noise_sigma")].as_f64().unwrap();
            assert!((f64::from(schedule.init_noise_sigma()) / reference - 1.0).abs() <= f64::from(ROUNDING));
        }
    }
}

#[test]
fn golden_schedules_of_the_pack() {
    let pack = Pack::open();
    let mut seen = 0;
    for steps in (1..=1000).filter(|steps| pack.tensors.has(&format!("sched.{steps}.timesteps"))) {
        let schedule = Schedule::new(&pack_config(&pack), SchedulerKind::EulerAncestral, steps).unwrap();
        for (name, ours) in [
            ("timesteps", vector(schedule.timesteps())),
            ("sigmas", vector(schedule.levels())),
            ("init_noise_sigma", vector(std::iter::once(schedule.init_noise_sigma()))),
        ] {
            let reference = pack.tensors.f32(&format!("sched.{steps}.{name}"));
            if reference.iter().all(|&value| value == 0.0) {
                assert_eq!(ours, reference);
            } else {
                assert!(relative_difference(&ours, &reference) <= ROUNDING, "{name} of {steps} steps");
            }
        }
        seen += 1;
    }
    assert!(seen > 0);

    // DDIM that visits every training step has every ᾱ as its level.
    let reference = pack.tensors.f32("ddpm.alphas_cumprod");
    let every = Schedule::new(&pack_config(&pack), SchedulerKind::Ddim, reference.len()).unwrap();
    let mut alphas: Vec<f32> = every.levels().take(reference.len()).collect();
    alphas.reverse();
    assert!(relative_difference(&vector(alphas.into_iter()), &reference) <= ROUNDING);
}

/// ε = 0.1 x + 0.01 t / 1000, the model the trajectories were made with.
#[test]
fn golden_sampler_trajectories() {
    let samplers = Tensors::open(&golden("samplers/samplers.safetensors"));
    for kind in SchedulerKind::ALL {
        for steps in [4, 10] {
            let schedule = Schedule::new(&config(), kind, steps).unwrap();
            let name = format!("sched.{}.{steps}", kind.name());
            let mut latents = array4(&samplers, &format!("{name}.x0"));
            for index in 0..steps {
                let t = schedule.timestep(index).unwrap();
                let prediction =
                    schedule.scale_input(&latents, index).unwrap().mapv(|x| 0.1 * x + 0.01 * t / 1000.0);
                let noise =
                    schedule.needs_noise().then(|| array4(&samplers, &format!("{name}.noise.{index}")));
                latents = schedule.step(&latents, &prediction, index, noise.as_ref()).unwrap();
                let reference = array4(&samplers, &format!("{name}.x.{index}"));
                assert_close(&format!("{name} step {index}"), &latents, &reference, ROUNDING);
            }
        }
    }
}

#[test]
fn golden_sampler_steps_of_the_pack() {
    let pack = Pack::open();
    let steps = 10;
    let schedule = Schedule::new(&pack_config(&pack), SchedulerKind::EulerAncestral, steps).unwrap();
    let step = |name: &str, index: usize| array4(&pack.tensors, &format!("sched.step10.{name}_{index}"));
    let mut latents = array4(&pack.tensors, "sched.step10.x_init");
    for index in 0..steps {
        let scaled = schedule.scale_input(&latents, index).unwrap();
        assert_close(&format!("scaled {index}"), &scaled, &step("scaled", index), ROUNDING);
        let noise = step("noise_step", index);
        latents = schedule.step(&latents, &step("eps", index), index, Some(&noise)).unwrap();
        assert_close(&format!("latents {index}"), &latents, &step("x", index), ROUNDING);
    }
}

/// An edit of the pack, replayed with the predictions and the noise that were recorded.
#[test]
fn golden_denoising() {
    let pack = Pack::open();
    let tensors = &pack.tensors;
    let vae = json(&pack.official(&["model_index.json"]).join("vae/config.json"));
    let scaling_factor = vae["scaling_factor"].as_f64().unwrap_or(0.18215) as f32;
    let cases = pack.json["cases"].as_array().unwrap();
    let mut runs: Vec<(String, f32, f32)> =
        (0..cases.len()).map(|index| (format!("case{index}"), 7.5, 1.5)).collect();
    for (index, case) in pack.json["ip2p"].as_array().unwrap().iter().enumerate() {
        let scale = |name: &str| case[name].as_f64().unwrap() as f32;
        runs.push((format!("ip2p{index}"), scale("guidance"), scale("image_guidance")));
    }
    for (run, text, image) in runs {
        let steps = (0..).take_while(|index| tensors.has(&format!("{run}.unet_out_{index}"))).count();
        assert!(steps > 0);
        let noise = std::iter::once(format!("{run}.noise_init"))
            .chain((0..steps).map(|index| format!("{run}.noise_step_{index}")))
            .map(|name| array4(tensors, &name));
        let branches = array4(tensors, &format!("{run}.cfg_image_latents"));
        let mut denoising = Denoising::new(
            Schedule::new(&pack_config(&pack), SchedulerKind::EulerAncestral, steps).unwrap(),
            Guidance::new(text, image).unwrap(),
            branches.slice(s![0..1, .., .., ..]).to_owned(),
            Box::new(RecordedNoise::new(noise)),
            None,
        )
        .unwrap();
        assert_eq!(denoising.total(), steps);
        while let Some(input) = denoising.next_input() {
            let index = denoising.done();
            if index == 0 {
                let reference = array4(tensors, &format!("{run}.unet_in_0"));
                assert_close(&format!("{run} input"), &input.sample, &reference, ROUNDING);
                assert_eq!(input.sample.slice(s![.., 4.., .., ..]), branches);
            }
            denoising.advance(&array4(tensors, &format!("{run}.unet_out_{index}"))).unwrap();
            let reference = array4(tensors, &format!("{run}.latents_{index}"));
            assert_close(&format!("{run} latents {index}"), denoising.latents(), &reference, LOOP);
        }
        assert_eq!(denoising.done(), steps);
        let decoded = denoising.latents().mapv(|x| x / scaling_factor);
        let reference = array4(tensors, &format!("{run}.vae_decode_in"));
        assert_close(&format!("{run} latents to decode"), &decoded, &reference, LOOP);
    }
}

#[test]
fn golden_torch_noise() {
    for case in json(&golden("samplers/samplers.json"))["torch_randn"].as_array().unwrap() {
        let seed = case["seed"].as_u64().unwrap();
        let reference: Vec<f32> =
            case["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect();
        let ours = TorchNoise::new(seed).draw(&[reference.len()]).unwrap();
        let difference = relative_difference(&ours, &vector(reference.iter().copied()));
        println!("{} values of seed {seed}: {difference:.1e}", reference.len());
        assert!(difference <= ROUNDING, "{} values of seed {seed}: {difference:e}", reference.len());
    }
}

/// What the pack's noise was drawn from.
#[test]
fn golden_torch_noise_of_the_pack() {
    let pack = Pack::open();
    for (list, run) in [("cases", "case"), ("ip2p", "ip2p")] {
        for (index, case) in pack.json[list].as_array().unwrap().iter().enumerate() {
            let mut noise = TorchNoise::new(case["torch_cpu_seed"].as_u64().unwrap());
            let steps = (0..).map(|step| format!("{run}{index}.noise_step_{step}"));
            for name in std::iter::once(format!("{run}{index}.noise_init")).chain(steps) {
                if !pack.tensors.has(&name) {
                    break;
                }
                let reference = pack.tensors.f32(&name);
                let ours = noise.draw(reference.shape()).unwrap();
                assert!(relative_difference(&ours, &reference) <= ROUNDING, "{name}");
            }
        }
    }
}

/// Made with a ChaCha20 of another library, following the description of [`SeededNoise`]:
///
/// ```python
/// import math, struct
/// from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
/// key = struct.pack("<Q", 42) + bytes(24)
/// stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(48))
/// words = struct.unpack("<6Q", stream)
/// for a, b in zip(words[::2], words[1::2]):
///     r = math.sqrt(-2 * math.log(((a >> 11) + 1) * 2**-53)); v = (b >> 11) * 2**-53
///     print(r * math.cos(2 * math.pi * v), r * math.sin(2 * math.pi * v))
/// ```
#[test]
fn seeded_noise_is_what_its_description_says() {
    let mut noise = SeededNoise::new(42);
    let first = noise.draw(&[1, 3]).unwrap();
    let second = noise.draw(&[2]).unwrap();
    let values: Vec<f32> = first.iter().chain(&second).copied().collect();
    let expected = [-0.3550095_f32, -1.273099, 0.4951139, -0.4079767, 0.4071926];
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() <= f32::EPSILON * expected.abs(), "{values:?}");
    }
    assert_eq!(values.len(), expected.len());
}

#[test]
fn seeded_noise_is_normal_and_differs_by_seed() {
    let draw = |seed| SeededNoise::new(seed).draw(&[100_000]).unwrap();
    let noise = draw(7);
    let mean = noise.mean().unwrap();
    let variance = noise.mapv(|x| x * x).mean().unwrap();
    assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    assert_eq!(noise, draw(7));
    assert_ne!(noise, draw(8));
    assert_ne!(noise, draw(7 + (1 << 32)));
}

fn denoising(kind: SchedulerKind, steps: usize, text: f32, image: f32) -> Denoising {
    let image_latents = Array4::from_shape_fn((1, 4, 2, 3), |(_, c, y, x)| (c + 2 * y + 3 * x) as f32 * 0.1);
    Denoising::new(
        Schedule::new(&config(), kind, steps).unwrap(),
        Guidance::new(text, image).unwrap(),
        image_latents,
        Box::new(SeededNoise::new(3)),
        None,
    )
    .unwrap()
}

#[test]
fn a_velocity_does_what_the_noise_it_amounts_to_does() {
    let at = |seed: f32| {
        Array4::from_shape_fn((1, 2, 3, 4), |(_, c, i, j)| ((c * 12 + i * 4 + j) as f32 * seed).sin())
    };
    let (original, noise, fresh) = (at(0.7), at(1.3), at(2.1));
    for kind in SchedulerKind::ALL {
        for timestep_spacing in [TimestepSpacing::Linspace, TimestepSpacing::Trailing] {
            let schedule = |prediction_type| {
                let config = SchedulerConfig { prediction_type, timestep_spacing, ..config() };
                Schedule::new(&config, kind, 5).unwrap()
            };
            let (of_noise, of_velocity) =
                (schedule(PredictionType::Epsilon), schedule(PredictionType::VPrediction));
            let levels: Vec<f32> = of_noise.levels().collect();
            for (index, &level) in levels.iter().take(5).enumerate() {
                // Parts of signal and noise in latents of unit variance, and by what Euler's exceed those.
                let (signal, part, scale) = match kind {
                    SchedulerKind::Ddim => (level.sqrt(), (1.0 - level).sqrt(), 1.0),
                    _ => {
                        let scale = (1.0 + level * level).sqrt();
                        (1.0 / scale, level / scale, scale)
                    }
                };
                let latents = (&original * signal + &noise * part) * scale;
                let velocity = &noise * signal - &original * part;
                let what = format!("{kind:?}, {timestep_spacing:?}, step {index}");
                let predicted = of_velocity.predicted_original(&latents, &velocity, index).unwrap();
                assert_close(&what, &predicted, &original, 1e-3);
                let one = of_velocity.step(&latents, &velocity, index, Some(&fresh)).unwrap();
                let other = of_noise.step(&latents, &noise, index, Some(&fresh)).unwrap();
                assert_close(&what, &one, &other, 1e-3);
            }
        }
    }
}

/// diffusers 0.20.2: `EulerDiscreteScheduler(timestep_spacing="trailing")`, `set_timesteps(n)`.
#[test]
fn trailing_timesteps_begin_at_the_last_training_step() {
    let config = SchedulerConfig { timestep_spacing: TimestepSpacing::Trailing, ..config() };
    for (steps, expected) in [(1, vec![999.0]), (2, vec![999.0, 499.0]), (3, vec![999.0, 666.0, 332.0])] {
        for kind in SchedulerKind::ALL {
            let schedule = Schedule::new(&config, kind, steps).unwrap();
            assert_eq!(schedule.timesteps().collect::<Vec<_>>(), expected, "{kind:?}");
        }
    }
}

#[test]
fn steps_out_of_range_are_refused() {
    for steps in [0, 1001, usize::MAX] {
        for kind in SchedulerKind::ALL {
            let error = Schedule::new(&config(), kind, steps).unwrap_err();
            assert_eq!(error, DiffusionError::Steps { steps, max: 1000 });
        }
    }
}

#[test]
fn a_configuration_without_sense_is_refused() {
    for broken in [
        SchedulerConfig { num_train_timesteps: 0, ..config() },
        SchedulerConfig { num_train_timesteps: usize::MAX, ..config() },
        SchedulerConfig { beta_start: f64::NAN, ..config() },
        SchedulerConfig { beta_start: 0.5, beta_end: 0.1, ..config() },
        SchedulerConfig { beta_end: 1.0, ..config() },
        SchedulerConfig { beta_start: 0.9, beta_end: 0.9, ..config() },
    ] {
        let error = Schedule::new(&broken, SchedulerKind::Euler, 1).unwrap_err();
        assert!(matches!(error, DiffusionError::Config(_)), "{error}");
    }
}

#[test]
fn guidance_that_is_no_number_is_refused() {
    for (text, image, scale) in [(f32::NAN, 1.0, "text"), (1.0, f32::INFINITY, "image")] {
        let error = Guidance::new(text, image).unwrap_err();
        assert!(matches!(error, DiffusionError::Guidance { scale: found, .. } if found == scale));
    }
}

#[test]
fn the_denoiser_is_run_on_the_branches_that_count() {
    let every = denoising(SchedulerKind::Euler, 2, 7.5, 1.5).next_input().unwrap();
    assert_eq!(every.sample.dim().0, BRANCHES);
    for (text, image, rows) in [(1.0, 1.0, vec![0]), (3.0, 3.0, vec![0, 2]), (7.5, 1.0, vec![0, 1])] {
        let mut some = denoising(SchedulerKind::Euler, 2, text, image);
        let input = some.next_input().unwrap();
        assert_eq!(input.sample, every.sample.select(Axis(0), &rows), "{text}, {image}");
        assert_eq!(some.branches().len(), rows.len());
        some.advance(&input.sample.slice(s![.., ..4, .., ..]).to_owned()).unwrap();
    }
}

#[test]
fn a_wrong_shape_is_refused_and_the_loop_stays_as_it_was() {
    let mut denoising = denoising(SchedulerKind::EulerAncestral, 2, 7.5, 1.5);
    let before = denoising.latents().clone();
    for shape in [(1, 4, 2, 3), (BRANCHES, 4, 3, 2), (BRANCHES, 8, 2, 3), (0, 0, 0, 0)] {
        let error = denoising.advance(&Array4::zeros(shape)).unwrap_err();
        assert!(matches!(error, DiffusionError::Shape { array: "predictions", .. }), "{error}");
    }
    assert_eq!((denoising.done(), denoising.latents()), (0, &before));
    assert!(denoising.predicted_original().is_none());
}

#[test]
fn recorded_noise_must_fit_and_suffice() {
    let mut noise = RecordedNoise::new([Array4::zeros((1, 4, 2, 3))]);
    assert!(matches!(noise.clone().draw(&[1, 4, 3, 2]), Err(DiffusionError::Shape { .. })));
    noise.draw(&[1, 4, 2, 3]).unwrap();
    assert_eq!(noise.draw(&[1, 4, 2, 3]), Err(DiffusionError::NoiseExhausted { recorded: 1 }));
}

#[test]
fn given_initial_latents_leave_the_noise_of_the_steps_alone() {
    let shape = [1, 4, 2, 3];
    let initial = SeededNoise::new(3).draw(&shape).unwrap().into_dimensionality::<Ix4>().unwrap();
    let run = |initial: Option<Array4<f32>>| {
        let schedule = Schedule::new(&config(), SchedulerKind::EulerAncestral, 3).unwrap();
        let guidance = Guidance::new(7.5, 1.5).unwrap();
        let noise = Box::new(SeededNoise::new(3));
        let mut denoising =
            Denoising::new(schedule, guidance, Array4::zeros((1, 4, 2, 3)), noise, initial).unwrap();
        while let Some(input) = denoising.next_input() {
            denoising.advance(&input.sample.slice(s![.., ..4, .., ..]).mapv(|x| 0.1 * x)).unwrap();
        }
        denoising.latents().clone()
    };
    assert_eq!(run(None), run(Some(initial.clone())));
    assert_ne!(run(None), run(Some(initial * 2.0)));
}

fn kinds() -> impl Strategy<Value = SchedulerKind> {
    prop::sample::select(SchedulerKind::ALL.to_vec())
}

/// Guidance scales, those that make a branch superfluous among them.
fn scale() -> impl Strategy<Value = f32> {
    prop_oneof![Just(0.0), Just(1.0), Just(1.5), -2.0_f32..10.0]
}

fn latents(batch: usize) -> impl Strategy<Value = Array4<f32>> {
    prop::collection::vec(-4.0_f32..4.0, batch * 4 * 2 * 3)
        .prop_map(move |values| Array4::from_shape_vec((batch, 4, 2, 3), values).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_number_of_steps_ends_after_exactly_that_many(kind in kinds(), steps in 1_usize..=1000) {
        let mut denoising = denoising(kind, steps, 7.5, 1.5);
        let mut last = f32::INFINITY;
        for done in 0..steps {
            prop_assert_eq!(denoising.done(), done);
            let input = denoising.next_input().unwrap();
            prop_assert!(input.timestep < last);
            last = input.timestep;
            denoising.advance(&input.sample.slice(s![.., ..4, .., ..]).to_owned()).unwrap();
            prop_assert!(denoising.latents().iter().all(|x| x.is_finite()));
        }
        prop_assert!(denoising.next_input().is_none());
        let error = denoising.advance(&Array4::zeros((BRANCHES, 4, 2, 3))).unwrap_err();
        prop_assert_eq!(error, DiffusionError::NoStep { index: steps, steps });
    }

    #[test]
    fn branches_that_do_not_count_are_left_out_and_missed_by_nobody(
        prediction in latents(BRANCHES), text in scale(), image in scale(), spare in -4.0_f32..4.0
    ) {
        let guidance = Guidance::new(text, image).unwrap();
        let branches = guidance.branches();
        prop_assert!(!branches.is_empty());
        let rows: Vec<usize> = (0..BRANCHES).filter(|row| branches.contains(&Branch::ALL[*row])).collect();
        let guided = guidance.apply(&prediction.select(Axis(0), &rows)).unwrap();

        let every = guidance.with_every_branch();
        prop_assert_eq!(every.branches(), Branch::ALL);
        let mut others = prediction.clone();
        for row in (0..BRANCHES).filter(|row| !rows.contains(row)) {
            others.index_axis_mut(Axis(0), row).fill(spare);
        }
        for whole in [&prediction, &others] {
            let expected = every.apply(whole).unwrap();
            for (found, expected) in guided.iter().zip(&expected) {
                prop_assert!((found - expected).abs() <= 1e-4, "{} instead of {}", found, expected);
            }
        }
        if rows.len() == BRANCHES {
            prop_assert_eq!(guided, every.apply(&prediction).unwrap());
        }
    }

    #[test]
    fn guidance_of_one_is_the_text_branch(prediction in latents(1)) {
        prop_assert_eq!(Guidance::new(1.0, 1.0).unwrap().apply(&prediction).unwrap(), prediction);
    }

    #[test]
    fn guidance_of_equal_branches_is_the_branch(
        branch in latents(1), text in -20.0_f32..20.0, image in -20.0_f32..20.0
    ) {
        let same = ndarray::concatenate(Axis(0), &[branch.view(), branch.view(), branch.view()]).unwrap();
        let guidance = Guidance::new(text, image).unwrap().with_every_branch();
        prop_assert_eq!(guidance.apply(&same).unwrap(), branch);
    }

    #[test]
    fn the_rows_of_a_batch_do_not_know_each_other(
        kind in kinds(), steps in 1_usize..50, x in latents(2), prediction in latents(2), noise in latents(2)
    ) {
        let schedule = Schedule::new(&config(), kind, steps).unwrap();
        let row = |array: &Array4<f32>, row: usize| array.slice(s![row..=row, .., .., ..]).to_owned();
        for index in [0, steps - 1] {
            let whole = schedule.step(&x, &prediction, index, Some(&noise)).unwrap();
            for r in 0..2 {
                let alone = schedule
                    .step(&row(&x, r), &row(&prediction, r), index, Some(&row(&noise, r)))
                    .unwrap();
                prop_assert_eq!(row(&whole, r), alone);
            }
        }
    }

    #[test]
    fn the_last_step_arrives_at_what_it_predicts(
        kind in kinds(), steps in 1_usize..50, x in latents(1), prediction in latents(1), noise in latents(1)
    ) {
        prop_assume!(kind != SchedulerKind::Ddim);
        let schedule = Schedule::new(&config(), kind, steps).unwrap();
        let last = schedule.step(&x, &prediction, steps - 1, Some(&noise)).unwrap();
        let predicted = schedule.predicted_original(&x, &prediction, steps - 1).unwrap();
        for (ours, expected) in last.iter().zip(&predicted) {
            prop_assert!((ours - expected).abs() <= 1e-4);
        }
    }
}
