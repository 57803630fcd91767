/* view_unpack(): entries come from the log and from other processes. What it accepts must be usable and must survive
 * another round trip unchanged. */
#include "common/payload.h"
#include "common/view.h"
#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct score_seed seed;
    struct view *view = view_unpack(data, size, 1);

    if (!view)
        return 0;
    struct room_key key = room_key_make("p", "eu/r");
    const struct view_node *owner = view_owner(view, &seed, &key, "eu");
    assert((owner != NULL) == (view->shard_count > 0));

    struct payload *packed = view_pack(view);
    struct view *back = view_unpack(packed->data, packed->size, 1);
    struct payload *repacked = view_pack(back);
    assert(repacked->size == packed->size && memcmp(repacked->data, packed->data, packed->size) == 0);
    payload_unref(&repacked);
    payload_unref(&packed);
    view_unref(&back);
    view_unref(&view);
    return 0;
}
