/*
 * region.c - memory of the host that cache items lie in: checked, copied, registered with the rings.
 */
#include "base/num.h"
#include "kv/cache.h"

static void region_free(struct ab_kv *kv, struct ab_region *region)
{
    kv->os->free(kv->os, region->planes);
    kv->os->free(kv->os, region->plane_strides);
    kv->os->free(kv->os, region->plane_bytes);
    *region = (struct ab_region){.used = false};
}

static int planes_copy(struct ab_kv *kv, const struct abode_region *host, struct ab_region *region)
{
    uint32_t count = host->plane_count;
    if (host->planes == NULL || host->plane_strides == NULL || host->plane_bytes == NULL ||
        count > ABODE_PLANES_MAX || host->frame_count == 0) {
        return -EINVAL;
    }
    region->planes = ab_os_alloc_array(kv->os, count, sizeof(*region->planes));
    region->plane_strides = ab_os_alloc_array(kv->os, count, sizeof(*region->plane_strides));
    region->plane_bytes = ab_os_alloc_array(kv->os, count, sizeof(*region->plane_bytes));
    if (region->planes == NULL || region->plane_strides == NULL || region->plane_bytes == NULL) {
        return -ENOMEM;
    }
    for (uint32_t p = 0; p < count; p++) {
        uint64_t span;
        if (host->planes[p] == NULL || host->plane_bytes[p] == 0 ||
            host->plane_strides[p] < host->plane_bytes[p] ||
            !ab_mul_u64(host->plane_strides[p], host->frame_count, &span)) {
            return -EINVAL;
        }
        region->planes[p] = host->planes[p];
        region->plane_strides[p] = host->plane_strides[p];
        region->plane_bytes[p] = host->plane_bytes[p];
        region->item_bytes += host->plane_bytes[p];
    }
    return 0;
}

int ab_region_add(struct ab_kv *kv, const struct abode_region *host, uint32_t *ret_region)
{
    if (host->memory == ABODE_CUDA) {
        return -ENOTSUP;
    }
    if (host->memory != ABODE_HOST ||
        (host->plane_count == 0 && (host->base == NULL || host->bytes == 0))) {
        return -EINVAL;
    }
    struct ab_region made = {.host = *host, .used = true};
    int status = host->plane_count == 0 ? 0 : planes_copy(kv, host, &made);
    if (status != 0) {
        region_free(kv, &made);
        return status;
    }
    made.host.node = host->node >= 0 && (uint32_t)host->node < ab_topology_node_count(kv->topology)
                         ? host->node
                         : -1;
    ab_lock_take(&kv->lock);
    uint32_t at = 0;
    while (at < AB_REGIONS_MAX && kv->regions[at].used) {
        at++;
    }
    if (at < AB_REGIONS_MAX) {
        kv->regions[at] = made;
    }
    ab_lock_drop(&kv->lock);
    if (at == AB_REGIONS_MAX) {
        region_free(kv, &made);
        return -ENOSPC;
    }
    if (host->plane_count == 0) { /* planar items are staged through frames, which are registered */
        ab_transfer_buffer(kv, host->base, host->bytes, -1, true);
    }
    *ret_region = at;
    return 0;
}

struct ab_region *ab_region_get(struct ab_kv *kv, uint32_t region)
{
    return region < AB_REGIONS_MAX && kv->regions[region].used ? &kv->regions[region] : NULL;
}

int ab_region_remove(struct ab_kv *kv, uint32_t index)
{
    ab_lock_take(&kv->lock);
    struct ab_region *region = ab_region_get(kv, index);
    int status = region == NULL ? -ENOENT : region->busy > 0 ? -EBUSY : 0;
    if (status == 0) {
        region->busy++; /* nobody else removes it; new ops are refused below */
        region->removing = true;
    }
    ab_lock_drop(&kv->lock);
    if (status != 0) {
        return status;
    }
    if (region->host.plane_count == 0) {
        ab_transfer_buffer(kv, region->host.base, region->host.bytes, -1, false);
    }
    ab_lock_take(&kv->lock);
    region_free(kv, region);
    ab_lock_drop(&kv->lock);
    return 0;
}

void ab_regions_close(struct ab_kv *kv)
{
    for (uint32_t i = 0; i < AB_REGIONS_MAX; i++) {
        if (kv->regions[i].used) {
            region_free(kv, &kv->regions[i]);
        }
    }
}
