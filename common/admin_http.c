#include "common/admin_http.h"
