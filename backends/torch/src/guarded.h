// A border that no exception passes.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdio>
#include <exception>

// What `make` makes as a tensor of its own, or null with the reason in `message`, which ends with a zero.
template <typename Make>
at::Tensor *guarded(char *message, size_t length, const Make &make) noexcept {
  try {
    return new at::Tensor(make());
  } catch (const std::exception &error) {
    std::snprintf(message, length, "%s", error.what());
  } catch (...) {
    std::snprintf(message, length, "an exception that is none of the standard's");
  }
  return nullptr;
}
