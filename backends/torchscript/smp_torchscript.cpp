// The TorchScript backend: runs archives of torch.jit.save with the libtorch that it was built against.
//
// The model is read from the host's memory and never from a file. What a TorchScript archive holds is code of its own small language, which
// libtorch compiles; no Python runs. Runs repeat bit for bit: libtorch's deterministic kernels, no fusion, and no profiling executor, which
// would run a model in another way the first times than later. Reductions to one value are split by threads in libtorch, so the promise
// holds for the same number of threads (smp_backend.h).
//
// libtorch's settings (threads, determinism) belong to the process, so the runs of a process follow each other under one lock. A run is
// stopped between two operators: each call of an operator passes a dispatch key that this file handles, which looks at the host's flag.
// Why libtorch failed is known only by its English text, since its interpreter throws every error anew as std::runtime_error; the text is
// compared with known phrases and goes no further.
#include "smp_backend.h"

#include <torch/cuda.h>
#include <torch/script.h>
#include <torch/version.h>

#include <ATen/Parallel.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/jit/passes/graph_fuser.h>
#include <torch/csrc/jit/passes/tensorexpr_fuser.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/jit_exception.h>
#include <torch/library.h>

#define SMP_TORCH (TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR)
#if SMP_TORCH >= 209
#include <c10/core/CachingDeviceAllocator.h>
#elif defined(SMP_TORCH_CUDA)
#include <c10/cuda/CUDACachingAllocator.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

struct smp_backend_model {
    torch::jit::Module module;
    at::Device device = at::kCPU;
    int threads = 1;
    bool deterministic = true;
    // Arguments of forward without self.
    std::vector<std::string> names;
    std::vector<const char *> name_pointers;
    std::size_t required = 0;
};

namespace {

constexpr auto KEY = c10::DispatchKey::TESTING_ONLY_GenericMode;

// One run, open or close at a time: see above.
std::timed_mutex &library() {
    static auto *mutex = new std::timed_mutex;
    return *mutex;
}

// The host's flag for the run on this thread.
thread_local const volatile int32_t *flag = nullptr;

struct Cancelled : std::exception {};

// Stands before every operator while a run includes KEY.
void look_at_flag(const c10::OperatorHandle &op, c10::DispatchKeySet keys, torch::jit::Stack *stack) {
    if (flag != nullptr && *flag != 0)
        throw Cancelled();
    op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, KEY), stack);
}

TORCH_LIBRARY_IMPL(_, TESTING_ONLY_GenericMode, library) {
    library.fallback(torch::CppFunction::makeFromBoxedFunction<&look_at_flag>());
}

// libtorch warns on stderr, in words that quote shapes and names.
struct Quiet : c10::WarningHandler {
#if SMP_TORCH >= 200
    void process(const c10::Warning &) override {}
#else
    void process(const c10::SourceLocation &, const std::string &, const bool) override {}
#endif
};
#if SMP_TORCH >= 200
using Silence = c10::WarningUtils::WarningHandlerGuard;
#else
using Silence = c10::Warning::WarningHandlerGuard;
#endif

struct Failure {
    int32_t status;
    const char *why;
};

int32_t tell(smp_backend_message *why, Failure failure) {
    std::strncpy(why->text, failure.why, sizeof why->text - 1);
    return failure.status;
}

bool has(const std::string &text, std::initializer_list<const char *> phrases) {
    return std::any_of(phrases.begin(), phrases.end(), [&](const char *phrase) { return text.find(phrase) != std::string::npos; });
}

// What a libtorch error means. Phrases of libtorch 1.13 to 2.15.
Failure meaning(const std::exception &error, Failure otherwise) {
    if (dynamic_cast<const std::bad_alloc *>(&error) != nullptr)
        return {SMP_BACKEND_OUT_OF_MEMORY, ""};
    if (dynamic_cast<const torch::jit::JITException *>(&error) != nullptr)
        return {SMP_BACKEND_FAILED, SMP_BACKEND_WHY_MODEL_RAISED};
    std::string text = error.what();
    // Before the error itself stand the lines of the model's code that led to it, which may hold any word.
    if (text.find("Traceback of TorchScript") != std::string::npos) {
        const auto last = text.rfind("RuntimeError: ");
        text.erase(0, last == std::string::npos ? text.size() : last);
    }
    if (has(text, {"CUDA out of memory", "CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "HIP out of memory"}))
        return {SMP_BACKEND_DEVICE_OUT_OF_MEMORY, ""};
    if (has(text, {"DefaultCPUAllocator", "bad_alloc", "not enough memory"}))
        return {SMP_BACKEND_OUT_OF_MEMORY, ""};
    if (has(text, {"maximum supported version"}))
        return {SMP_BACKEND_UNSUPPORTED, SMP_BACKEND_WHY_OLD_LIBRARY};
    if (has(text, {"Unknown builtin op", "Unknown type name", "Could not run 'aten::", "is not implemented for", "not compiled with CUDA"}))
        return {SMP_BACKEND_UNSUPPORTED, "libtorch lacks an operator or a type that the model uses"};
    if (otherwise.status == SMP_BACKEND_FAILED &&
        has(text, {"Expected a value of type", "Expected 2D", "Expected 3D", "Expected 4D", "Expected 5D", "expected 4D", "expected 5D",
                   "-dimensional input", "input of size", "must match the size of tensor", "shapes cannot be multiplied", "is invalid for input",
                   "Sizes of tensors must match", "Kernel size can't be greater", "Output size is too small", "mat1 dim", "size mismatch",
                   "Dimension out of range", "running_mean should contain", "expected input"}))
        return {SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_INPUT_SHAPE};
    return otherwise;
}

// Runs work so that no exception leaves.
template <typename Work> int32_t guarded(smp_backend_message *why, Failure otherwise, Work work) {
    Quiet quiet;
    try {
        const Silence silence(&quiet);
        return work();
    } catch (const Failure &failure) {
        return tell(why, failure);
    } catch (const std::exception &error) {
        return tell(why, meaning(error, otherwise));
    } catch (...) {
        return tell(why, otherwise);
    }
}

void forget_cache(at::Device device) {
    if (device.is_cpu())
        return;
#if SMP_TORCH >= 209
    c10::getDeviceAllocator(device.type())->emptyCache();
#elif defined(SMP_TORCH_CUDA)
    c10::cuda::CUDACachingAllocator::emptyCache();
#endif
}

// "cpu", or "cuda:N" when there is such a device.
bool find_device(const char *text, at::Device *device) {
    if (std::strcmp(text, "cpu") == 0) {
        *device = at::kCPU;
        return true;
    }
    const std::string digits = std::strncmp(text, "cuda:", 5) == 0 ? text + 5 : "";
    if (digits.empty() || digits.size() > 2 || digits.find_first_not_of("0123456789") != std::string::npos)
        return false;
    const int index = std::stoi(digits);
    *device = at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
    return torch::cuda::is_available() && index < static_cast<int>(torch::cuda::device_count());
}

// The host's bytes as libtorch reads a file.
class Bytes final : public caffe2::serialize::ReadAdapterInterface {
  public:
    Bytes(const uint8_t *data, std::size_t length) : data_(data), length_(length) {}
    std::size_t size() const override { return length_; }
    std::size_t read(uint64_t from, void *into, std::size_t count, const char *) const override {
        if (from >= length_)
            return 0;
        const std::size_t n = std::min(count, length_ - static_cast<std::size_t>(from));
        std::memcpy(into, data_ + from, n);
        return n;
    }

  private:
    const uint8_t *data_;
    std::size_t length_;
};

// libtorch's settings for this model's runs.
void settle(const smp_backend_model &model) {
    auto &context = at::globalContext();
    const bool cpu = model.device.is_cpu();
    // On a GPU some operators have no deterministic kernel, and cuBLAS wants a variable in the environment that only the host may set: there
    // libtorch does what it can. On the CPU an operator that cannot repeat itself is an error.
    context.setDeterministicAlgorithms(model.deterministic, /*warn_only=*/!cpu);
    context.setDeterministicCuDNN(model.deterministic);
    context.setBenchmarkCuDNN(!model.deterministic);
    if (!cpu && model.deterministic) {
        // TF32 keeps 10 bits of the mantissa, and so differs from the CPU in the third digit.
        context.setAllowTF32CuDNN(false);
        context.setAllowTF32CuBLAS(false);
    }
    torch::jit::getProfilingMode() = false;
    torch::jit::setTensorExprFuserEnabled(false);
    torch::jit::overrideCanFuseOnCPULegacy(false);
    // OpenMP keeps the number of threads for each calling thread.
    if (at::get_num_threads() != model.threads)
        at::set_num_threads(model.threads);
}

const char *version() { return "libtorch " TORCH_VERSION; }

int32_t device_available(const char *text) {
    smp_backend_message unused{};
    at::Device device = at::kCPU;
    return guarded(&unused, {0, ""}, [&] { return find_device(text, &device) ? 1 : 0; }) == 1;
}

int32_t open_model(const smp_backend_open *request, smp_backend_model **out, smp_backend_message *why) {
    const int32_t status = guarded(why, {SMP_BACKEND_UNREADABLE, "libtorch cannot read the archive"}, [&] {
        const std::lock_guard<std::timed_mutex> lock(library());
        auto model = std::make_unique<smp_backend_model>();
        if (!find_device(request->device, &model->device))
            throw Failure{SMP_BACKEND_DEVICE_UNAVAILABLE, "libtorch sees no such device"};
        const unsigned machine = std::max(1u, std::thread::hardware_concurrency());
        model->threads = static_cast<int>(std::min(request->threads == 0 ? machine : request->threads, 1024u));
        model->deterministic = request->deterministic != 0;
        settle(*model);
        const c10::InferenceMode inference;
        auto bytes = std::make_shared<Bytes>(request->model, static_cast<std::size_t>(request->model_length));
        model->module = torch::jit::load(bytes, model->device);
        model->module.eval();
        const auto forward = model->module.find_method("forward");
        if (!forward)
            throw Failure{SMP_BACKEND_UNSUPPORTED, "the module has no forward"};
        const auto &arguments = forward->function().getSchema().arguments();
        for (std::size_t i = 1; i < arguments.size(); i++) {
            model->names.push_back(arguments[i].name());
            model->required += arguments[i].default_value() ? 0 : 1;
        }
        for (const auto &name : model->names)
            model->name_pointers.push_back(name.c_str());
        *out = model.release();
        return SMP_BACKEND_OK;
    });
    return status;
}

const char *const *inputs(const smp_backend_model *model, uint32_t *count) {
    *count = static_cast<uint32_t>(model->name_pointers.size());
    return model->name_pointers.data();
}

// Inputs by the names of forward's arguments; when no name fits, in the order in which they come.
at::IValue forward(smp_backend_model *model, const smp_backend_tensor *tensors, uint32_t count) {
    if (count < model->required || count > model->names.size())
        throw Failure{SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_INPUT_COUNT};
    std::vector<at::IValue> by_position;
    torch::jit::Kwargs by_name;
    for (uint32_t i = 0; i < count; i++) {
        const auto &tensor = tensors[i];
        // libtorch has no constant tensors, and a model may change its input in place: it gets a copy.
        const auto host = torch::from_blob(const_cast<float *>(tensor.values), at::IntArrayRef(tensor.shape, tensor.rank), at::kFloat);
        const auto value = model->device.is_cpu() ? host.clone() : host.to(model->device);
        const bool known = std::find(model->names.begin(), model->names.end(), tensor.name) != model->names.end();
        if (known && !by_name.emplace(tensor.name, value).second)
            throw Failure{SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_INPUT_NAMES};
        if (!known)
            by_position.emplace_back(value);
    }
    if (!by_name.empty() && !by_position.empty())
        throw Failure{SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_INPUT_NAMES};
    const c10::impl::IncludeDispatchKeyGuard watched(KEY);
    return model->module.forward(std::move(by_position), by_name);
}

// The output of a name, or of an index where outputs have no names.
at::Tensor pick(const at::IValue &value, const std::string &name) {
    const Failure absent{SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_OUTPUT_NAME};
    at::IValue found;
    if (value.isTensor()) {
        found = value;
    } else if (value.isGenericDict()) {
        for (const auto &entry : value.toGenericDict())
            if (entry.key().isString() && entry.key().toStringRef() == name)
                found = entry.value();
        if (found.isNone())
            throw absent;
    } else if (value.isTuple() || value.isList()) {
        const std::vector<at::IValue> items = value.isTuple() ? value.toTuple()->elements().vec() : value.toListRef().vec();
        std::size_t index = items.size();
        if (!name.empty() && name.size() <= 3 && name.find_first_not_of("0123456789") == std::string::npos)
            index = static_cast<std::size_t>(std::stoul(name));
        // A named tuple knows the names of its fields.
        const auto schema = value.isTuple() ? value.toTuple()->type<c10::TupleType>()->schema() : nullptr;
        for (std::size_t i = 0; schema != nullptr && i < schema->arguments().size(); i++)
            if (schema->arguments()[i].name() == name)
                index = i;
        if (index >= items.size())
            throw absent;
        found = items[index];
    }
    if (!found.isTensor() || !found.toTensor().defined() || found.toTensor().layout() != at::kStrided || found.toTensor().is_complex() ||
        found.toTensor().is_quantized() || found.toTensor().dim() > SMP_BACKEND_RANK)
        throw Failure{SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_OUTPUT_TYPE};
    return found.toTensor().to(at::kCPU, at::kFloat).contiguous();
}

int32_t run(smp_backend_model *model, const smp_backend_tensor *tensors, uint32_t count, const char *output, smp_backend_read read,
            void *context, const volatile int32_t *cancelled, smp_backend_message *why) {
    std::unique_lock<std::timed_mutex> lock(library(), std::defer_lock);
    int32_t status = guarded(why, {SMP_BACKEND_FAILED, "libtorch failed"}, [&] {
        while (!lock.try_lock_for(std::chrono::milliseconds(50)))
            if (*cancelled != 0)
                return SMP_BACKEND_CANCELLED;
        settle(*model);
        const c10::InferenceMode inference;
        flag = cancelled;
        const auto tensor = pick(forward(model, tensors, count), output);
        flag = nullptr;
        if (*cancelled != 0)
            return SMP_BACKEND_CANCELLED;
        read(context, static_cast<uint32_t>(tensor.dim()), tensor.sizes().data(), tensor.data_ptr<float>());
        return SMP_BACKEND_OK;
    });
    flag = nullptr;
    if (status != SMP_BACKEND_OK && *cancelled != 0)
        status = SMP_BACKEND_CANCELLED;
    if (status == SMP_BACKEND_DEVICE_OUT_OF_MEMORY) {
        smp_backend_message unused{};
        guarded(&unused, {SMP_BACKEND_FAILED, ""}, [&] { return forget_cache(model->device), SMP_BACKEND_OK; });
    }
    return status;
}

void close_model(smp_backend_model *model) {
    smp_backend_message unused{};
    guarded(&unused, {SMP_BACKEND_FAILED, ""}, [&] {
        const std::lock_guard<std::timed_mutex> lock(library());
        const at::Device device = model->device;
        delete model;
        forget_cache(device);
        return SMP_BACKEND_OK;
    });
}

const smp_backend TABLE = {
    SMP_BACKEND_ABI, sizeof(smp_backend), "torchscript", version, device_available, open_model, inputs, nullptr, run, close_model,
};

} // namespace

extern "C" __attribute__((visibility("default"))) const smp_backend *smp_backend_entry(uint32_t abi) {
    return abi == SMP_BACKEND_ABI ? &TABLE : nullptr;
}
