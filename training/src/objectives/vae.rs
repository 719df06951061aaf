//! The autoencoder.

use anyhow::Result;
use fastrand::Rng;
use tch::{Kind, Tensor};

use super::{Loss, Objective};
use crate::condition::coverage;
use crate::lab::Lab;
use crate::machine::leave;
use crate::parameters::Parameters;
use crate::pictures;
use crate::recipe::StageRecipe;
use crate::world::{SIZE, Split, sample_scene};

/// Pictures over which latents are brought to mean 0 and variance 1 in the end.
const STATISTICS: usize = 512;

/// Reconstruction: absolute, squared and gradient errors, weighted up where objects are, and a little of the
/// distance to the normal distribution.
pub(super) struct Vae {
    pub(super) stage: StageRecipe,
}

impl Objective for Vae {
    fn needs(&self) -> &'static [&'static str] {
        &[]
    }

    fn trains(&self) -> &'static [&'static str] {
        &["vae_encoder", "vae_decoder"]
    }

    fn loss(&self, lab: &Lab, parameters: &Parameters, rng: &mut Rng) -> Result<Loss> {
        let (pixels, objects) = batch(rng, self.stage.batch);
        let e = lab.machine.engine();
        let moments = leave(&lab.vae_encoder(parameters)?.moments(e, &lab.machine.enter(&pixels))?)?;
        let parts = moments.chunk(2, 1);
        let (mean, log_variance) = (&parts[0], parts[1].clamp(-30.0, 20.0));
        let latents = mean + (&log_variance * 0.5).exp() * mean.randn_like();
        let output = leave(&lab.vae_decoder(parameters)?.forward(e, &lab.machine.enter(&latents))?)?;

        let error = &output - &pixels;
        let weight = objects * self.stage.weight("object") + 1.0;
        let absolute = (error.abs() * &weight).mean(Kind::Float);
        let square = (error.square() * &weight).mean(Kind::Float);
        let gradient = gradient(&error, &weight);
        let kl = divergence(mean, &log_variance);
        let total = &absolute
            + &square * self.stage.weight("square")
            + gradient * self.stage.weight("gradient")
            + &kl * self.stage.weight("kl");
        let decibel = (error.square().mean(Kind::Float) / 4.0).log10() * -10.0;
        Ok(Loss { total, parts: vec![("absolute", absolute), ("kl", kl), ("psnr", decibel)] })
    }

    /// Brings each channel of the latents to mean 0 and variance 1, and the decoder back, inside the convolutions
    /// next to them.
    fn finish(&self, lab: &Lab, parameters: &mut Parameters) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut rng = Rng::with_seed(lab.recipe.seed);
        let encoder = lab.vae_encoder(parameters)?;
        let mut latents = Vec::new();
        for _ in 0..STATISTICS / 32 {
            let (pixels, _) = batch(&mut rng, 32);
            latents.push(leave(&encoder.forward(lab.machine.engine(), &lab.machine.enter(&pixels))?)?);
        }
        let latents = Tensor::cat(&latents, 0).transpose(0, 1).flatten(1, -1);
        let (std, mean) = latents.std_mean_dim([1i64].as_slice(), true, false);
        normalise(parameters, &mean, &std);
        Ok(())
    }
}

/// Pixels `[batch, 3, h, w]` and where objects are `[batch, 1, h, w]`.
fn batch(rng: &mut Rng, count: usize) -> (Tensor, Tensor) {
    let (mut rendered, mut objects) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (scene, _) = sample_scene(rng, None, Split::Train);
        rendered.push(scene.render());
        let mut covered = vec![0f32; SIZE * SIZE];
        for object in &scene.objects {
            covered.iter_mut().zip(coverage(object, SIZE)).for_each(|(all, one)| *all = all.max(one));
        }
        objects.extend(covered);
    }
    let side = SIZE as i64;
    (pictures::tensor(&rendered), Tensor::from_slice(&objects).reshape([count as i64, 1, side, side]))
}

/// Mean absolute difference of neighbours' errors.
fn gradient(error: &Tensor, weight: &Tensor) -> Tensor {
    let along = |axis: i64| {
        let n = error.size()[axis as usize] - 1;
        let difference = error.narrow(axis, 1, n) - error.narrow(axis, 0, n);
        (difference.abs() * weight.narrow(axis, 0, n)).mean(Kind::Float)
    };
    along(2) + along(3)
}

/// Kullback-Leibler divergence to the standard normal distribution, per element.
fn divergence(mean: &Tensor, log_variance: &Tensor) -> Tensor {
    (mean.square() + log_variance.exp() - 1.0 - log_variance).mean(Kind::Float) * 0.5
}

/// Folds `(latents − mean) / std` into the encoder's last convolution and its inverse into the decoder's first.
fn normalise(parameters: &mut Parameters, mean: &Tensor, std: &Tensor) {
    let channels = mean.size()[0];
    let get = |parameters: &Parameters, name: &str| parameters.get(name).map(Tensor::detach);
    if let (Some(weight), Some(bias)) =
        (get(parameters, "vae_encoder/quant_conv.weight"), get(parameters, "vae_encoder/quant_conv.bias"))
    {
        let shift = Tensor::cat(&[mean / std, std.log() * 2.0], 0);
        // The logarithm of the variance is shifted, not divided.
        let scale = Tensor::cat(&[std.shallow_clone(), std.ones_like()], 0);
        parameters.insert("vae_encoder/quant_conv.weight", weight / scale.reshape([-1, 1, 1, 1]));
        parameters.insert("vae_encoder/quant_conv.bias", bias / &scale - shift);
    }
    if let (Some(weight), Some(bias)) = (
        get(parameters, "vae_decoder/post_quant_conv.weight"),
        get(parameters, "vae_decoder/post_quant_conv.bias"),
    ) {
        let matrix = weight.reshape([-1, channels]);
        parameters.insert("vae_decoder/post_quant_conv.bias", bias + matrix.mv(mean));
        parameters.insert("vae_decoder/post_quant_conv.weight", weight * std.reshape([1, -1, 1, 1]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For mean 1 and variance e, `(1 + e − 1 − 1) / 2`.
    #[test]
    fn the_divergence_is_the_closed_form() {
        let ones = Tensor::ones([3], tch::kind::FLOAT_CPU);
        let expected = (std::f64::consts::E - 1.0) / 2.0;
        assert!((divergence(&ones, &ones).double_value(&[]) - expected).abs() < 1e-6);
        let zeros = ones.zeros_like();
        assert_eq!(divergence(&zeros, &zeros).double_value(&[]), 0.0);
    }

    /// Errors 0, 1, 3 in a row: differences 1 and 2, weighted 1 and 2, and none between rows.
    #[test]
    fn gradients_of_errors_are_weighted_differences_of_neighbours() {
        let error = Tensor::from_slice(&[0.0f32, 1.0, 3.0]).repeat([1, 1, 2, 1]);
        let weight = Tensor::from_slice(&[1.0f32, 2.0, 4.0]).repeat([1, 1, 2, 1]);
        assert_eq!(gradient(&error, &weight).double_value(&[]), 2.5);
    }

    #[test]
    fn normalised_latents_have_the_statistics_and_decode_to_the_same() {
        tch::manual_seed(1);
        let options = tch::kind::FLOAT_CPU;
        let mut parameters = Parameters::default();
        parameters.insert("vae_encoder/quant_conv.weight", Tensor::randn([4, 4, 1, 1], options));
        parameters.insert("vae_encoder/quant_conv.bias", Tensor::randn([4], options));
        parameters.insert("vae_decoder/post_quant_conv.weight", Tensor::randn([2, 2, 1, 1], options));
        parameters.insert("vae_decoder/post_quant_conv.bias", Tensor::randn([2], options));
        let x = Tensor::randn([1, 4, 8, 8], options);
        let run = |parameters: &Parameters, side: &str, x: &Tensor| {
            let of = |name: &str| parameters.get(&format!("{side}.{name}"));
            x.conv2d(of("weight").unwrap(), of("bias"), [1, 1], [0, 0], [1, 1], 1)
        };
        let moments = run(&parameters, "vae_encoder/quant_conv", &x);
        let latents = moments.narrow(1, 0, 2);
        let decoded = run(&parameters, "vae_decoder/post_quant_conv", &latents);
        let (std, mean) = latents.transpose(0, 1).flatten(1, -1).std_mean_dim([1i64].as_slice(), true, false);
        normalise(&mut parameters, &mean, &std);
        let after = run(&parameters, "vae_encoder/quant_conv", &x);
        let new = after.narrow(1, 0, 2);
        let (std_after, mean_after) =
            new.transpose(0, 1).flatten(1, -1).std_mean_dim([1i64].as_slice(), true, false);
        assert!((std_after - 1.0).abs().max().double_value(&[]) < 1e-4);
        assert!(mean_after.abs().max().double_value(&[]) < 1e-4);
        let again = run(&parameters, "vae_decoder/post_quant_conv", &new);
        assert!((again - decoded).abs().max().double_value(&[]) < 1e-4);
        // The variance shrinks with the square of the scale.
        let change = moments.narrow(1, 2, 2) - after.narrow(1, 2, 2);
        assert!((change - std.log().reshape([1, -1, 1, 1]) * 2.0).abs().max().double_value(&[]) < 1e-4);
    }
}
