/* Backends: libraries that run models which ONNX Runtime does not run.
 *
 * A backend is a shared library that exports one function, smp_backend_entry, and needs nothing of libsmp to be built: this file is the
 * whole interface. It is C99 and C++11. libsmp loads a backend at run time, hands it a model's bytes and the tensors of a window, and
 * reads one output. backends/example is a small one in C, backends/torchscript the one for TorchScript.
 *
 * A backend is code that runs in the process with its rights. libsmp loads one only from the places that docs/model-contract.md lists.
 *
 * Units      Sizes are bytes, shapes are voxels (or channels, or studies), values are float32 in the machine's byte order, rows major:
 *            the last dimension is the fastest.
 * Text       UTF-8, ends with NUL.
 * Ownership  What the host hands over is the host's, and is valid until the function returns; what is kept must be copied. The backend
 *            must not write to it. What the backend returns (names, versions) is the backend's; how long it is valid stands beside it.
 * Threads    The functions of the table may be called from any thread. Calls for one model follow each other, never at the same time;
 *            calls for different models may overlap. A backend whose library cannot do that must lock by itself.
 * Errors     A function that can fail returns a status code. The message is for people who write backends; the host does not show it,
 *            because messages quote what they are about. It passes on only the reasons below, compared word for word.
 *            A message must not quote tensor values or text out of the model.
 * Exceptions No C++ exception and no longjmp may leave a function of the table.
 * Unloading  The host never unloads a backend.
 */
#ifndef SMP_BACKEND_H
#define SMP_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Version of this interface. It changes when a struct or the meaning of a call changes; a host asks for exactly one. */
#define SMP_BACKEND_ABI 1u
/* Most dimensions of a tensor. */
#define SMP_BACKEND_RANK 8
/* Most inputs of one run. */
#define SMP_BACKEND_INPUTS 64u
/* Bytes of a message, with its NUL. */
#define SMP_BACKEND_MESSAGE 256

/* Status codes. */
#define SMP_BACKEND_OK 0
/* The bytes are not a model of this backend, or a damaged one. */
#define SMP_BACKEND_UNREADABLE 1
/* A whole model that needs what this backend does not have (an operator, a version of the format). */
#define SMP_BACKEND_UNSUPPORTED 2
/* There is no such device, or the backend was built without it. */
#define SMP_BACKEND_DEVICE_UNAVAILABLE 3
/* Memory of the device does not suffice. A smaller window may. */
#define SMP_BACKEND_DEVICE_OUT_OF_MEMORY 4
/* Memory of the machine does not suffice. */
#define SMP_BACKEND_OUT_OF_MEMORY 5
/* Inputs or outputs do not fit the model: number, names, dimensions. */
#define SMP_BACKEND_SHAPE 6
/* The run failed, for example because the model raised an error. */
#define SMP_BACKEND_FAILED 7
/* The run ended early because the host asked. */
#define SMP_BACKEND_CANCELLED 8

/* Reasons that the host passes on when a message holds exactly one of them. */
#define SMP_BACKEND_WHY_INPUT_NAMES "the inputs' names are not the model's"
#define SMP_BACKEND_WHY_INPUT_COUNT "the model takes another number of inputs"
#define SMP_BACKEND_WHY_INPUT_SHAPE "an input's dimensions do not fit the model"
#define SMP_BACKEND_WHY_OUTPUT_NAME "the model has no such output"
#define SMP_BACKEND_WHY_OUTPUT_TYPE "the output is not a tensor of numbers"
#define SMP_BACKEND_WHY_MODEL_RAISED "the model raised an error of its own"
#define SMP_BACKEND_WHY_OLD_LIBRARY "the model needs a newer version of the backend's library"

/* A model that is open. What it is, is the backend's affair. */
typedef struct smp_backend_model smp_backend_model;

/* Where a function says why it failed. The host hands it over filled with zeros; the text ends with NUL. */
typedef struct smp_backend_message {
    char text[SMP_BACKEND_MESSAGE];
} smp_backend_message;

/* What a model is opened with. */
typedef struct smp_backend_open {
    /* sizeof(smp_backend_open) of the host. */
    uint32_t struct_size;
    /* Threads of one run; 0 means as many as the machine has. */
    uint32_t threads;
    /* The model file as it lies on the disk, whole. These are the bytes whose digest was checked: a backend reads nothing else. */
    const uint8_t *model;
    /* Bytes of it, at least 1. */
    uint64_t model_length;
    /* "cpu" or "cuda:N". Other words are SMP_BACKEND_DEVICE_UNAVAILABLE. */
    const char *device;
    /* 1: the same inputs give the same bits on the same machine with the same number of threads, from the first run on. On the CPU this
     * is a promise; on a device as far as its library allows. 0: as fast as can be. */
    int32_t deterministic;
    /* 0. */
    uint32_t reserved;
} smp_backend_open;

/* One input of a run. */
typedef struct smp_backend_tensor {
    /* Name from the model's contract. */
    const char *name;
    const float *values;
    /* Number of values, the product of the dimensions. */
    uint64_t count;
    /* Number of dimensions, 0..SMP_BACKEND_RANK; shape beyond it is 0. */
    uint32_t rank;
    /* 0. */
    uint32_t reserved;
    int64_t shape[SMP_BACKEND_RANK];
} smp_backend_tensor;

/* Receives the output. Called once, on the thread that called run, before run returns SMP_BACKEND_OK; never when run fails.
 * `values` holds the product of `shape` (rank entries, 0..SMP_BACKEND_RANK) values, contiguous, and is the backend's. */
typedef void (*smp_backend_read)(void *context, uint32_t rank, const int64_t *shape, const float *values);

/* The functions of a backend. The table is a constant of the library; no entry is NULL unless it says so. */
typedef struct smp_backend {
    /* SMP_BACKEND_ABI of the backend: what smp_backend_entry was asked for. */
    uint32_t abi;
    /* sizeof(smp_backend) of the backend, at least that of the host's header. */
    uint32_t struct_size;

    /* Lower-case name of letters, digits and '-', at most 32 ("torchscript"). Valid for ever. */
    const char *name;

    /* What runs the models, with its version ("libtorch 1.13.1"), at most 64 characters. Valid for ever. */
    const char *(*version)(void);

    /* Whether models can be opened on a device: 1 or 0. A device that is there may still be full. */
    int32_t (*device_available)(const char *device);

    /* Opens a model. On SMP_BACKEND_OK `*out` is a model that `close` takes; otherwise it is left alone.
     * UNREADABLE, UNSUPPORTED, DEVICE_UNAVAILABLE, DEVICE_OUT_OF_MEMORY, OUT_OF_MEMORY, FAILED. */
    int32_t (*open)(const smp_backend_open *request, smp_backend_model **out, smp_backend_message *why);

    /* Names of the model's inputs in the model's own order, and how many; NULL and 0 where the model does not say.
     * Valid until the model is closed. The entry may be NULL. */
    const char *const *(*inputs)(const smp_backend_model *model, uint32_t *count);

    /* The same for the outputs. */
    const char *const *(*outputs)(const smp_backend_model *model, uint32_t *count);

    /* Runs the model once on `count` inputs (at most SMP_BACKEND_INPUTS) and hands the output named `output` to `read`.
     *
     * Inputs go to the model's inputs by name; where the model has no names for them, by position. An output is found by its name; where
     * the model's outputs have no names, `output` is "0", "1" and so on; a model with one unnamed output takes any name for it.
     *
     * `*cancelled` becomes other than 0, at any time and from another thread, when the result is no longer wanted. A backend looks at it
     * as often as it can, best every 100 ms, and then returns SMP_BACKEND_CANCELLED; one that cannot stop returns when it is done.
     * SHAPE, FAILED, CANCELLED, DEVICE_OUT_OF_MEMORY, OUT_OF_MEMORY, UNSUPPORTED. After any of them the model can be run again. */
    int32_t (*run)(smp_backend_model *model, const smp_backend_tensor *inputs, uint32_t count, const char *output, smp_backend_read read,
                   void *context, const volatile int32_t *cancelled, smp_backend_message *why);

    /* Closes a model and gives back what it held, on the device too. */
    void (*close)(smp_backend_model *model);
} smp_backend;

/* The backend's table for a version of the interface; NULL for a version that it does not know. The only symbol that a backend exports. */
const smp_backend *smp_backend_entry(uint32_t abi);

#ifdef __cplusplus
}
#endif

#endif
