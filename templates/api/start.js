// Swagger UI over this node's own description. What is typed into it stays in this tab.
"use strict";

window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: -1,
  persistAuthorization: false,
  validatorUrl: null,
});
