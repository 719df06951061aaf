//! The form of a request.

use axum::extract::multipart::{Field, Multipart};
use axum::http::StatusCode;
use bytes::Bytes;
use smartedit_proto::v1;

use crate::failure::{Failure, Violations};
use crate::security::Access;
use crate::service::{Destination, Hints, Order};
use crate::status::status;
use crate::web::error::Refused;

/// Edits that one request may ask for.
const MAX_EDITS: u64 = 10;

/// Fields of a form; there are fewer names.
const MAX_FIELDS: usize = 64;

/// A request for edits of one picture.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Form {
    image: Bytes,
    prompt: String,
    model: String,
    edits: u64,
    options: v1::EditOptions,
}

impl Form {
    /// Reads a form to its end. What the server cannot do is refused rather than left undone.
    pub(super) async fn receive(mut fields: Multipart) -> Result<Self, Refused> {
        let mut reading = Reading::default();
        while let Some(field) = fields.next_field().await? {
            if reading.seen.len() == MAX_FIELDS {
                let message = format!("the form has more than {MAX_FIELDS} fields");
                return Err(Refused::form(StatusCode::BAD_REQUEST, message));
            }
            reading.take(field).await?;
        }
        reading.finish().map_err(|failure| status(&failure, None).into())
    }

    /// How many edits are asked for.
    pub(super) fn edits(&self) -> u64 {
        self.edits
    }

    /// The edits asked for, each with a seed of its own.
    pub(super) fn orders(self, access: Access, hints: Hints) -> impl Iterator<Item = Order> {
        let Self { image, prompt, model: name, edits, options } = self;
        let destination = Destination::Named { name, hints };
        let first = options.seed.unwrap_or_else(|| fastrand::u32(..).into());
        (0..edits).map(move |index| Order {
            image: image.clone(),
            instruction: prompt.clone(),
            destination: destination.clone(),
            options: v1::EditOptions { seed: Some(first.wrapping_add(index)), ..options.clone() },
            access: access.clone(),
        })
    }
}

#[derive(Default)]
struct Reading {
    form: Form,
    /// Names of the fields so far.
    seen: Vec<String>,
    violations: Violations,
}

impl Reading {
    async fn take(&mut self, field: Field<'_>) -> Result<(), Refused> {
        let name = field.name().unwrap_or_default();
        // Where a list of pictures is given, libraries say so in the name.
        let name = name.strip_suffix("[]").unwrap_or(name).to_owned();
        let content = field.bytes().await?;
        if self.seen.contains(&name) {
            self.violations.add(short(&name), "is there several times");
        } else if name == "image" {
            self.form.image = content;
        } else {
            match String::from_utf8(content.into()) {
                Ok(text) => self.text(&name, text),
                Err(error) => self.violations.add(short(&name), error.utf8_error()),
            }
        }
        self.seen.push(name);
        Ok(())
    }

    fn text(&mut self, name: &str, text: String) {
        let (options, violations) = (&mut self.form.options, &mut self.violations);
        match name {
            "prompt" => self.form.prompt = text,
            "model" => self.form.model = text,
            "n" => match text.parse() {
                Ok(edits) if (1..=MAX_EDITS).contains(&edits) => self.form.edits = edits,
                _ => violations.add(name, format!("is `{}`, 1 to {MAX_EDITS} are allowed", short(&text))),
            },
            "size" => match size(&text) {
                Ok(resolution) => options.resolution = resolution,
                Err(message) => violations.add(name, message),
            },
            "output_format" => match text.as_str() {
                "png" => options.set_output_format(v1::OutputFormat::Png),
                "jpeg" => options.set_output_format(v1::OutputFormat::Jpeg),
                "webp" => options.set_output_format(v1::OutputFormat::Webp),
                _ => only(violations, name, &text, &["png", "jpeg", "webp"]),
            },
            "response_format" => only(violations, name, &text, &["b64_json"]),
            "quality" => only(violations, name, &text, &["auto"]),
            "background" => only(violations, name, &text, &["auto", "opaque"]),
            "stream" => only(violations, name, &text, &["false"]),
            "output_compression" => options.output_quality = number(violations, name, &text),
            "seed" => options.seed = number(violations, name, &text),
            "steps" => options.steps = number(violations, name, &text),
            "text_guidance" => options.text_guidance = number(violations, name, &text),
            "image_guidance" => options.image_guidance = number(violations, name, &text),
            "negative_prompt" => options.negative_prompt = Some(text),
            "adapter" => options.adapter = Some(text),
            "adapter_scale" => options.adapter_scale = number(violations, name, &text),
            "route_key" => options.route_key = text,
            // Names the end user for abuse reports; there are none.
            "user" => {}
            "mask" => violations.add(name, "cannot be given: the instruction says what to edit"),
            _ => violations.add(short(name), "is no field of this call"),
        }
    }

    fn finish(mut self) -> Result<Form, Failure> {
        for name in ["image", "prompt"] {
            if !self.seen.iter().any(|seen| seen == name) {
                self.violations.add(name, "is missing");
            }
        }
        self.form.edits = self.form.edits.max(1);
        if self.violations.is_empty() { Ok(self.form) } else { Err(Failure::Invalid(self.violations)) }
    }
}

/// Complains unless the text is one of these.
fn only(violations: &mut Violations, name: &str, text: &str, allowed: &[&str]) {
    if !allowed.contains(&text) {
        let message = format!("is `{}`, {} can be had", short(text), allowed.join(" or "));
        violations.add(name, message);
    }
}

fn number<T: std::str::FromStr>(violations: &mut Violations, name: &str, text: &str) -> Option<T> {
    let number = text.parse().ok();
    if number.is_none() {
        violations.add(name, format!("is `{}`, which is no number that it can be", short(text)));
    }
    number
}

/// `WIDTHxHEIGHT`; `auto` is the model's own.
fn size(text: &str) -> Result<Option<v1::Resolution>, String> {
    if text == "auto" {
        return Ok(None);
    }
    let sides = text.split_once('x').and_then(|(width, height)| {
        Some(v1::Resolution { width: width.parse().ok()?, height: height.parse().ok()? })
    });
    sides.map(Some).ok_or_else(|| format!("is `{}`, WIDTHxHEIGHT or auto is needed", short(text)))
}

/// A caller's words, short enough to be repeated.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn read(fields: &[(&str, &str)]) -> Result<Form, Vec<String>> {
        let mut reading = Reading { seen: vec!["image".to_owned()], ..Reading::default() };
        for (name, text) in fields {
            reading.text(name, (*text).to_owned());
            reading.seen.push((*name).to_owned());
        }
        match reading.finish() {
            Ok(form) => Ok(form),
            Err(Failure::Invalid(violations)) => {
                Err(violations.iter().map(|(field, message)| format!("{field} {message}")).collect())
            }
            Err(failure) => panic!("{failure}"),
        }
    }

    #[test]
    fn what_openai_calls_by_other_names() {
        let form = read(&[
            ("prompt", "Make it blue"),
            ("model", "cats"),
            ("n", "2"),
            ("size", "64x48"),
            ("output_format", "jpeg"),
            ("output_compression", "80"),
            ("response_format", "b64_json"),
            ("seed", "18446744073709551615"),
            ("steps", "3"),
            ("text_guidance", "2.5"),
            ("route_key", "somebody"),
            ("user", "somebody"),
        ])
        .unwrap();
        let orders: Vec<_> = form.orders(Access::anybody(None), Hints::of(&HeaderMap::new())).collect();
        let seeds: Vec<_> = orders.iter().map(|order| order.options.seed).collect();
        assert_eq!(seeds, [Some(u64::MAX), Some(0)], "each has a seed of its own");
        let Order { instruction, destination, options, .. } = &orders[0];
        assert_eq!(instruction, "Make it blue");
        assert!(matches!(destination, Destination::Named { name, .. } if name == "cats"));
        assert_eq!(options.resolution, Some(v1::Resolution { width: 64, height: 48 }));
        assert_eq!((options.output_quality, options.steps), (Some(80), Some(3)));
        assert_eq!(options.route_key, "somebody");
        assert_eq!((options.text_guidance, options.output_format()), (Some(2.5), v1::OutputFormat::Jpeg));
    }

    #[test]
    fn little_is_needed() {
        let form =
            read(&[("prompt", "x"), ("size", "auto"), ("quality", "auto"), ("stream", "false")]).unwrap();
        assert_eq!((form.edits, form.options, form.model.as_str()), (1, v1::EditOptions::default(), ""));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (name, text) in [
            ("n", "0"),
            ("n", "11"),
            ("n", "many"),
            ("size", "64"),
            ("size", "64xtall"),
            ("size", "-1x8"),
            ("output_format", "tiff"),
            ("response_format", "url"),
            ("quality", "high"),
            ("background", "transparent"),
            ("stream", "true"),
            ("seed", "-1"),
            ("steps", "1.5"),
            ("text_guidance", "strong"),
            ("mask", ""),
            ("sice", "64x64"),
        ] {
            let complaints = read(&[("prompt", "x"), (name, text)]).unwrap_err();
            assert!(
                complaints.len() == 1 && complaints[0].starts_with(name),
                "{name}={text}: {complaints:?}"
            );
        }
        assert_eq!(read(&[]).unwrap_err(), ["prompt is missing"]);
    }
}
