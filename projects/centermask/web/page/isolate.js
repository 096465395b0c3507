// Service worker that adds the headers without which browsers give a page no threads ("cross-origin isolation").
// Hosts that send Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy themselves don't need it.

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  if (event.request.mode === 'navigate' || event.request.destination === 'worker') {
    event.respondWith(isolated(event.request));
  }
});

async function isolated(request) {
  const response = await fetch(request);
  if (response.type === 'opaqueredirect') return response;
  const headers = new Headers(response.headers);
  headers.set('Cross-Origin-Opener-Policy', 'same-origin');
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp');
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
