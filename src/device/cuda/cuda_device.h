// One NVIDIA GPU: its memory, its stream, the kernels that were loaded, the driver's library.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "device/cuda/cuda_stream.h"
#include "device/cuda/cuda_uploads.h"
#include "device/cuda/driver.h"
#include "device/device.h"

namespace ferry {

struct CudaOptions {
  bool replay = false;     // wait for each launch, so that an error names the one op
  double timeout_s = 120;  // without any launch coming to its end: a hang
};

struct CudaGrid {
  unsigned x = 1, y = 1, z = 1;
};

/// Lives as long as the process. Thread rule: one thread at a time; any thread.
class CudaDevice final : public Device {
 public:
  /// Sets the device up: context, stream, memory pool. With `tensor_products` it is another device
  /// of the same GPU, with a stream of its own. Errors: kUnavailable.
  static Result<CudaDevice*> open(int index, bool tensor_products = false);

  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string name() const override { return name_; }
  std::string describe() const override;

  void* allocate(size_t bytes) override;
  void deallocate(void* p, size_t bytes) override;
  MemoryUse memory_use() const override;
  void reset_peak() override { use_.peak_bytes = use_.live_bytes; }
  std::optional<uint64_t> memory_available() const override;  // what the pool would give, too

  void copy_from_host(void* device, const void* host, size_t bytes) override;
  void copy_to_host(void* host, const void* device, size_t bytes) override;
  void copy(void* to, const void* from, size_t bytes) override;
  void fill_zero(void* p, size_t bytes) override;

  CudaStream& stream() override { return stream_; }
  void set_replay(bool on) override { options_.replay = on; }
  double peak_flops_bf16() const override;
  /// Whether products of bf16 matrices are made on tensor cores.
  bool tensor_products() const { return tensor_products_; }

  const cuda::Library& library() const { return library_; }
  bool software() const { return !library_.software.empty(); }
  CudaOptions& options() { return options_; }

  /// Launches a kernel of `ptx`, a text that lives as long as the process and is compiled when it
  /// is met first; so does `kernel`. The kernel's one argument is the block of bytes. Throws
  /// DeviceError.
  void launch(const char* ptx,
              const char* kernel,
              CudaGrid grid,
              CudaGrid block,
              const void* args,
              size_t args_bytes);

  /// Makes this device the calling thread's. Every call of the library needs it.
  void bind() const;

  /// Throws DeviceError for a call of the library that answered `code`.
  void checked(cuda::Error code, const char* call);

 private:
  struct Chip {
    cuda::DeviceId id;
    std::string name;
    int capability;  // 90 for 9.0
    int multiprocessors;
    int clock_khz;
    size_t memory_bytes;
  };

  CudaDevice(int index,
             bool tensor_products,
             const cuda::Library& library,
             Chip chip,
             cuda::Context context,
             cuda::StreamHandle stream,
             cuda::MemoryPool pool,
             const CudaOptions& options);
  static Result<Chip> accepted_chip(const cuda::Library& library, int index);
  cuda::Function function(const char* ptx, const char* kernel);

  static constexpr size_t kDownloadBytes = size_t{4} << 20;

  bool tensor_products_;
  std::string name_;
  const cuda::Library& library_;
  Chip chip_;
  cuda::Context context_;
  cuda::MemoryPool pool_;
  CudaOptions options_;
  CudaStream stream_;
  CudaUploads uploads_;
  MemoryUse use_;
  void* download_ = nullptr;  // pinned memory, on the way from the chip
  std::map<const char*, cuda::Module> modules_;
  std::map<std::pair<const char*, const char*>, cuda::Function> functions_;
};

/// The device behind a stream that a kernel for CUDA was given.
inline CudaDevice& cuda_device(Stream& stream) { return static_cast<CudaDevice&>(stream.device()); }

}  // namespace ferry
