/* An example backend in plain C: models that are the mean of a volume, times a factor, plus an offset.
 *
 * A model is a text file of one line, "smp-mean 1 SCALE SHIFT". It takes one input of any dimensions and gives one value, shape [1]. That
 * is enough to show all that a backend does: it copies what it keeps, says why it refuses, sums in a fixed order (the same bits every
 * time), looks at the cancel flag, and hands its output to the host while it is still its own.
 *
 *     cc -std=c99 -shared -fPIC -fvisibility=hidden -I include backends/example/smp_example_backend.c -o libsmp_example.so
 */
#include "smp_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__)
#define EXPORTED __attribute__((visibility("default")))
#else
#define EXPORTED
#endif

/* Values between two looks at the cancel flag: some tens of microseconds. */
#define STRIP 65536u
#define MAX_TEXT 256u

struct smp_backend_model {
    double scale;
    double shift;
};

static int32_t fail(smp_backend_message *why, int32_t status, const char *text)
{
    strncpy(why->text, text, sizeof why->text - 1);
    return status;
}

static const char *version(void) { return "example 1"; }

static int32_t device_available(const char *device) { return strcmp(device, "cpu") == 0; }

static int32_t open_model(const smp_backend_open *request, smp_backend_model **out, smp_backend_message *why)
{
    char text[MAX_TEXT + 1];
    char rest;
    double scale, shift;
    smp_backend_model *model;

    if (!device_available(request->device))
        return fail(why, SMP_BACKEND_DEVICE_UNAVAILABLE, "this backend has the cpu only");
    if (request->model_length > MAX_TEXT)
        return fail(why, SMP_BACKEND_UNREADABLE, "longer than a model is");
    memcpy(text, request->model, (size_t)request->model_length);
    text[request->model_length] = '\0';
    if (sscanf(text, "smp-mean 1 %lf %lf %c", &scale, &shift, &rest) != 2)
        return fail(why, SMP_BACKEND_UNREADABLE, "not a line of the form: smp-mean 1 SCALE SHIFT");
    model = malloc(sizeof *model);
    if (model == NULL)
        return fail(why, SMP_BACKEND_OUT_OF_MEMORY, "");
    model->scale = scale;
    model->shift = shift;
    *out = model;
    return SMP_BACKEND_OK;
}

static const char *const INPUTS[] = {"volume"};
static const char *const OUTPUTS[] = {"mean"};

static const char *const *inputs(const smp_backend_model *model, uint32_t *count)
{
    (void)model;
    *count = 1;
    return INPUTS;
}

static const char *const *outputs(const smp_backend_model *model, uint32_t *count)
{
    (void)model;
    *count = 1;
    return OUTPUTS;
}

static int32_t run(smp_backend_model *model, const smp_backend_tensor *tensors, uint32_t count, const char *output, smp_backend_read read,
                   void *context, const volatile int32_t *cancelled, smp_backend_message *why)
{
    const int64_t shape[1] = {1};
    double sum = 0.0;
    float value;
    uint64_t i;

    if (count != 1)
        return fail(why, SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_INPUT_COUNT);
    if (strcmp(tensors[0].name, INPUTS[0]) != 0)
        return fail(why, SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_INPUT_NAMES);
    if (strcmp(output, OUTPUTS[0]) != 0)
        return fail(why, SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_OUTPUT_NAME);
    if (tensors[0].count == 0)
        return fail(why, SMP_BACKEND_SHAPE, SMP_BACKEND_WHY_INPUT_SHAPE);
    for (i = 0; i < tensors[0].count; i++) {
        if (i % STRIP == 0 && *cancelled != 0)
            return fail(why, SMP_BACKEND_CANCELLED, "");
        sum += (double)tensors[0].values[i];
    }
    value = (float)(model->scale * (sum / (double)tensors[0].count) + model->shift);
    read(context, 1, shape, &value);
    return SMP_BACKEND_OK;
}

static void close_model(smp_backend_model *model) { free(model); }

static const smp_backend TABLE = {
    SMP_BACKEND_ABI, sizeof(smp_backend), "example", version, device_available, open_model, inputs, outputs, run, close_model,
};

EXPORTED const smp_backend *smp_backend_entry(uint32_t abi) { return abi == SMP_BACKEND_ABI ? &TABLE : NULL; }
