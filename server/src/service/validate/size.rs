//! The size at which a picture is edited.

use smartedit_core::picture::{SIDE_MULTIPLE, prepared_size};
use smartedit_core::pipeline::Resize;
use smartedit_proto::v1;

use super::Check;

const RESOLUTION: &str = "options.resolution";

/// How a picture comes to its size, and the size.
pub(super) struct Size {
    /// What the request asks for; `None` is the model's default.
    pub(super) how: Option<Resize>,
    /// Width and height, as far as they are known.
    pub(super) size: Option<(u32, u32)>,
}

impl Check<'_> {
    /// Checks the size for a source picture of these dimensions, if they are known.
    pub(super) fn resize(&mut self, options: &v1::EditOptions, source: Option<(u32, u32)>) -> Size {
        let how = self.how(options);
        let default = self.default_resize();
        let size = match (how.unwrap_or(default), source) {
            (Resize::Stretch { width, height } | Resize::Crop { width, height }, _) => Some((width, height)),
            (how, Some((width, height))) => match prepared_size(width, height, how) {
                Ok(size) => Some(size),
                Err(error) => {
                    self.violations.add("image", error);
                    None
                }
            },
            (_, None) => None,
        };
        if let Some((width, height)) = size {
            self.within_limits(width, height, how.is_some());
        }
        Size { how, size }
    }

    fn how(&mut self, options: &v1::EditOptions) -> Option<Resize> {
        let mode = self.known("options.resize_mode", options.resize_mode);
        let size =
            match options.resolution {
                Some(size) => Some(self.sides(size)?),
                None => self.model.defaults.resolution.and_then(|(width, height)| {
                    Some((u32::try_from(width).ok()?, u32::try_from(height).ok()?))
                }),
            };
        let given = options.resolution.is_some();
        match (mode, size) {
            (v1::ResizeMode::Unspecified, Some((width, height))) if given => {
                Some(Resize::Stretch { width, height })
            }
            (v1::ResizeMode::Unspecified, _) => None,
            (v1::ResizeMode::Keep, _) if given => {
                self.violations.add(RESOLUTION, "must be absent where the picture's own size is kept");
                None
            }
            (v1::ResizeMode::Keep, _) => Some(Resize::Keep),
            (v1::ResizeMode::Stretch, Some((width, height))) => Some(Resize::Stretch { width, height }),
            (v1::ResizeMode::Fit, Some((width, height))) => Some(Resize::Fit { width, height }),
            (v1::ResizeMode::Crop, Some((width, height))) => Some(Resize::Crop { width, height }),
            (_, None) => {
                self.violations
                    .add(RESOLUTION, "is needed for this resize_mode: the model has no size of its own");
                None
            }
        }
    }

    /// The sides of a resolution, if they can be.
    fn sides(&mut self, size: v1::Resolution) -> Option<(u32, u32)> {
        let mut valid = true;
        for (side, pixels) in [("width", size.width), ("height", size.height)] {
            let message = if pixels == 0 || !pixels.is_multiple_of(SIDE_MULTIPLE) {
                format!("is {pixels}, a positive multiple of {SIDE_MULTIPLE} is needed")
            } else if pixels > self.limits.max_edit_side {
                format!("is {pixels}, at most {} are allowed", self.limits.max_edit_side)
            } else {
                continue;
            };
            self.violations.add(format!("{RESOLUTION}.{side}"), message);
            valid = false;
        }
        valid.then_some((size.width, size.height))
    }

    fn default_resize(&self) -> Resize {
        let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
        self.model.defaults.resolution.map_or(Resize::Keep, |(width, height)| Resize::Stretch {
            width: side(width),
            height: side(height),
        })
    }

    fn within_limits(&mut self, width: u32, height: u32, chosen: bool) {
        let (pixels, limits) = (u64::from(width) * u64::from(height), self.limits);
        let message = if pixels > limits.max_edit_pixels {
            format!("{pixels} pixels, at most {} are allowed", limits.max_edit_pixels)
        } else if width.max(height) > limits.max_edit_side {
            format!("sides up to {}, at most {} are allowed", width.max(height), limits.max_edit_side)
        } else {
            return;
        };
        let advice = if chosen { "" } else { "; choose a resolution" };
        self.violations.add(RESOLUTION, format!("the edit would have {message}{advice}"));
    }
}
