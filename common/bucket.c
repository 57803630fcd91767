#include "common/bucket.h"
