#include "gateway/ws.h"
